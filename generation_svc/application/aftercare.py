"""What the provider is asked after a generation has completed: for links again, and to delete.

Both are asked for by the log, and each answer is an event: so a question that is delivered twice
is answered once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from generation_svc.application.provider import (
    Failed,
    Pending,
    ProviderRequest,
    ProviderUnavailable,
    ResultGone,
    Succeeded,
)
from generation_svc.domain.commands import AnswerLinks, RecordSourcesDeleted, RefuseLinks
from generation_svc.domain.state import Done
from shared.contracts.generation_events import GenerationCompleted, RenewedLink
from shared.contracts.storage_events import (
    MediaStored,
    MigrationCompleted,
    ObjectLost,
    RefetchRequested,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from generation_svc.application.deciding import Decider
    from generation_svc.application.provider import Provider
    from generation_svc.domain.commands import Command
    from shared.contracts.envelope import Recorded
    from shared.event_log.port import EventLog

log = structlog.get_logger()

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
# A link whose death nobody tells is taken to be as short-lived as any that is given out.
_UNTOLD_LIFETIME: Final = timedelta(minutes=10)


def begins_aftercare(event: object, *, deleting: bool) -> bool:
    """Whether an event may say that there is something to ask the provider."""
    match event:
        case RefetchRequested():
            return True
        case MigrationCompleted():
            return deleting
        case GenerationCompleted(outputs=outputs):
            return deleting and all(output.stored is not None for output in outputs)
        case _:
            return False


@dataclass(frozen=True, slots=True)
class Aftercare:
    """Settles what the log asks the provider of one completed generation.

    Attributes:
        deleting: the providers that are asked to delete their copy once all is stored.
        pause: waits, and raises when the service stops.
    """

    decider: Decider
    log: EventLog
    providers: Mapping[str, Provider]
    deleting: Collection[str]
    pause: Callable[[float], Awaitable[None]]

    async def __call__(self, generation_id: str) -> None:
        """Answer every request for links that has no answer yet; then delete what is stored.

        Raises:
            TryLater: the log, or the provider that should delete, gave no answer.
        """
        state = (await self.decider.load(generation_id)).state
        if not isinstance(state, Done) or not isinstance(state.outcome, GenerationCompleted):
            return
        history = (await self.log.load("storage", generation_id)).events
        for recorded in history:
            asked = recorded.envelope.data
            if isinstance(asked, RefetchRequested) and asked.request not in state.answered:
                await self.decider.handle(
                    generation_id,
                    await self._answer(state, state.outcome, asked),
                    causation_id=recorded.envelope.id,
                )
        if self._may_delete(state, state.outcome, history):
            stored_last = history[-1].envelope.id if history else None
            await self._delete(generation_id, state, state.outcome, answers=stored_last)

    async def _answer(
        self, state: Done, completed: GenerationCompleted, asked: RefetchRequested
    ) -> Command:
        provider = self.providers.get(completed.provider)
        if provider is None:
            detail = f"provider {completed.provider} is not set up here"
            return RefuseLinks(asked.request, detail)
        request = _request_of(state)
        if request is None:
            return RefuseLinks(asked.request, "the provider's names for the request are not known")
        found = await self._asked(provider, request, until=asked.answer_by)
        match found:
            case Succeeded():
                return self._links(_links_of(state, completed), asked, found)
            case str():
                return RefuseLinks(asked.request, found)

    async def _asked(
        self, provider: Provider, request: ProviderRequest, *, until: datetime
    ) -> Succeeded | str:
        """The result, or why there is none."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                match await provider.poll(request):
                    case Succeeded() as result:
                        return result
                    case Failed(code=code, detail=detail):
                        return f"{code}: {detail}"
                    case Pending():
                        why = "the provider says that it is not finished"
            except ResultGone as gone:
                return str(gone)
            except ProviderUnavailable as error:
                why = str(error)
            left_s = (until - self.decider.clock()).total_seconds()
            if left_s <= 0:
                return f"no links until the time was over: {why}"
            await self.pause(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _links(
        self, known: Mapping[int, str], asked: RefetchRequested, result: Succeeded
    ) -> Command:
        """The links that are new: one that came before died before."""
        now = self.decider.clock()
        links = tuple(
            RenewedLink(
                index=index,
                source_url=result.outputs[index].url,
                expires_at=result.outputs[index].expires_at or now + _UNTOLD_LIFETIME,
            )
            for index in asked.indexes
            if index < len(result.outputs) and result.outputs[index].url != known.get(index)
        )
        if not links:
            return RefuseLinks(asked.request, "the provider gives the same links again")
        return AnswerLinks(asked.request, links)

    def _may_delete(
        self, state: Done, completed: GenerationCompleted, history: Sequence[Recorded]
    ) -> bool:
        if completed.provider not in self.deleting or state.sources_deleted:
            return False
        stored = {output.index for output in completed.outputs if output.stored is not None}
        for recorded in history:
            match recorded.envelope.data:
                case MediaStored(index=index):
                    stored.add(index)
                case ObjectLost(index=index):
                    stored.discard(index)
                case _:
                    pass
        return len(stored) == len(completed.outputs)

    async def _delete(
        self,
        generation_id: str,
        state: Done,
        completed: GenerationCompleted,
        *,
        answers: str | None,
    ) -> None:
        provider, request = self.providers.get(completed.provider), _request_of(state)
        if provider is None or request is None:
            return
        await provider.delete_sources(request)
        await self.decider.handle(generation_id, RecordSourcesDeleted(), causation_id=answers)
        log.info("sources_deleted", generation_id=generation_id, provider=completed.provider)


def _links_of(state: Done, completed: GenerationCompleted) -> dict[int, str]:
    """The links as they were last given."""
    first = {output.index: output.source_url for output in completed.outputs}
    return {**first, **state.renewed}


def _request_of(state: Done) -> ProviderRequest | None:
    submitted = state.submitted
    if submitted is None:
        return None
    return ProviderRequest(
        submitted.request_id, submitted.status_url, submitted.response_url, submitted.cancel_url
    )
