"""Turn what the provider made into a completed generation, whatever storage does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from generation_svc.application.deciding import Decided
from generation_svc.application.provider import Failed, Succeeded
from generation_svc.application.store_outputs import store_outputs
from generation_svc.domain.commands import Complete, Fail
from generation_svc.domain.state import Absent, Done, Requested, Running, Submitting
from shared.contracts.facts import Output

if TYPE_CHECKING:
    from generation_svc.application.deciding import Decider
    from generation_svc.application.provider import ProviderTraits, Result
    from generation_svc.domain.state import State
    from shared.media.copying import Copier


@dataclass(frozen=True, slots=True)
class FinishGeneration:
    """Records a provider's result, reported by webhook or found by polling.

    Attributes:
        budget_s: how long the user may be kept waiting for permanent URLs; 0: not at all.
    """

    decider: Decider
    copier: Copier
    budget_s: float

    async def __call__(
        self, generation_id: str, result: Result, *, request_id: str, traits: ProviderTraits
    ) -> Decided:
        """Append what the result comes to. The second report of a result changes nothing.

        Raises:
            UnknownGeneration: nobody asked for it.
            TryLater: the log could not be asked or written; report again.
        """
        if isinstance(result, Failed):
            return await self._fail(generation_id, result, request_id)
        if not result.outputs:
            nothing = Failed(
                code="no_media",
                detail="the provider's answer holds no media",
                retryable=False,
                billed=None,
            )
            return await self._fail(generation_id, nothing, request_id)
        return await self._complete(generation_id, result, request_id, traits)

    async def _fail(self, generation_id: str, failed: Failed, request_id: str) -> Decided:
        command = Fail(
            request_id=request_id,
            code=failed.code,
            detail=failed.detail,
            retryable=failed.retryable,
            billed=failed.billed,
        )
        return await self.decider.handle(generation_id, command)

    async def _complete(
        self, generation_id: str, result: Succeeded, request_id: str, traits: ProviderTraits
    ) -> Decided:
        loaded = await self.decider.load(generation_id)
        match loaded.state:
            case Done(open_since=None):
                return Decided(loaded.state, (), loaded.version)
            case state:
                outputs = self._outputs(result, traits, state)
        request = None if isinstance(state, Absent) else state.request
        if request is None:
            return await self.decider.handle(generation_id, Complete(request_id, outputs))
        stored = await store_outputs(
            outputs,
            provider=request.provider,
            user_id=request.user_id,
            generation_id=generation_id,
            copier=self.copier,
            budget_s=self.budget_s,
        )
        command = Complete(request_id, stored.outputs, stored.failures)
        return await self.decider.handle(generation_id, command)

    def _outputs(
        self, result: Succeeded, traits: ProviderTraits, state: State
    ) -> tuple[Output, ...]:
        # Links begin to die when the provider finishes, which it may not say and a late webhook
        # hides. Counted from the submission the death comes too early by the run, never too late.
        match state:
            case Running(submitted_at=since) | Submitting(started_at=since):
                born_at = since
            case Done(open_since=since):
                born_at = since or self.decider.clock()
            case Absent() | Requested():
                born_at = self.decider.clock()
        expires_at = born_at + timedelta(seconds=traits.link_lifetime_s)
        return tuple(
            Output(
                index=index,
                source_url=output.url,
                expires_at=output.expires_at or expires_at,
                media_type=output.media_type,
                width=output.width,
                height=output.height,
            )
            for index, output in enumerate(result.outputs)
        )
