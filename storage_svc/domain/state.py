"""What the events of one generation add up to for the service that keeps its media.

Both aggregates of a generation are folded together, in the order of the log: what there is to
keep, and where, is said by `velro.generation.<id>`, what became of it by `velro.storage.<id>`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING

from shared.contracts.envelope import UnknownEvent
from shared.contracts.generation_events import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    GenerationRequested,
    GenerationSubmitted,
    LinksNotRenewed,
    LinksRenewed,
    SourcesDeleted,
    StorageFailed,
    SubmissionStarted,
)
from shared.contracts.storage_events import (
    MediaLost,
    MediaStored,
    MigrationAttemptFailed,
    MigrationCompleted,
    ObjectLost,
    QuarantineRejected,
    QuarantineReleased,
    RefetchRequested,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from shared.contracts.envelope import Envelope
    from shared.contracts.facts import Output, StoredObject
    from shared.contracts.reasons import ReasonCode


@dataclass(frozen=True, slots=True)
class Link:
    """Where the bytes of one output are to be had, and until when, as far as anybody promised.

    `request` is the request for new links that brought it, 0 for the completion's own link.
    """

    source_url: str
    dies_at: datetime
    request: int = 0


@dataclass(frozen=True, slots=True)
class Past:
    """What was tried with an output that is not stored.

    Attributes:
        link: the newest one.
        attempts: copies that failed so far.
        losses: how often it was given up on.
        requests: how often a new link was asked for.
        asked: the last of these requests, by its number in the generation; 0 is none.
        as_is: whether a person wants the bytes whatever they are.
        vanished: how often it was stored, and its object was lost.
    """

    link: Link
    attempts: int = 0
    losses: int = 0
    requests: int = 0
    asked: int = 0
    as_is: bool = False
    vanished: int = 0

    def waits_for(self, request: int) -> bool:
        """Whether an answer to this request says something new."""
        return self.asked == request > self.link.request


@dataclass(frozen=True, slots=True)
class Missing:
    """Only the provider has the bytes; the last attempt on this link failed for `reason`."""

    past: Past
    reason: ReasonCode | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class AwaitingLink:
    """The link is dead, a new one was asked for; `refusal` is the answer that there is none."""

    past: Past
    reason: ReasonCode
    detail: str
    answer_by: datetime
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """Given up. Bytes that turn up all the same are kept; `rejected` is a person's word on it."""

    past: Past
    reason: ReasonCode
    rejected: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """In the bucket; `at_once` where the publisher of the generation had stored it itself.

    `past` is what came before that, for the case that the object gets lost.
    """

    object: StoredObject
    at_once: bool = False
    past: Past | None = field(default=None, compare=False)


OutputState = Missing | AwaitingLink | Lost | Stored


@dataclass(frozen=True, slots=True)
class Absent:
    """The generation is not completed: there is nothing to keep."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The generation is completed: what it made, and where each output is, by index."""

    completed: GenerationCompleted
    outputs: Mapping[int, OutputState]
    migration_completed: bool = False
    last_request: int = 0


State = Absent | Kept


# One table, read from top to bottom: split up, nobody could see that it covers everything.
def evolve(state: State, envelope: Envelope) -> State:  # noqa: C901, PLR0911, PLR0912
    """The state after one event. What cannot follow changes nothing."""
    match envelope.data, state:
        case GenerationCompleted() as completed, Absent():
            return Kept(
                completed, {output.index: _at_first(output) for output in completed.outputs}
            )
        case MediaStored(index=index, object=stored), Kept():
            before = state.outputs.get(index)
            return _with(state, index, Stored(stored, past=before and before.past))
        case MigrationAttemptFailed(index=index) as failed, Kept():
            return _with(state, index, _after_failure(state.outputs.get(index), failed))
        case MediaLost(index=index) as lost, Kept():
            return _with(state, index, _after_loss(state.outputs.get(index), lost))
        case ObjectLost(index=index) as vanished, Kept():
            return _with(state, index, _after_object_lost(state.outputs.get(index), vanished))
        case MigrationCompleted(), Kept():
            return replace(state, migration_completed=True)

        case QuarantineReleased(index=index, attempt=attempt), Kept():
            match state.outputs.get(index):
                case Lost(past=past, rejected=None) if past.attempts == attempt:
                    return _with(state, index, Missing(replace(past, as_is=True)))
                case _:
                    return state
        case QuarantineRejected(index=index, attempt=attempt, detail=why), Kept():
            match state.outputs.get(index):
                case Lost(past=past) as lost if past.attempts == attempt:
                    return _with(state, index, replace(lost, rejected=why))
                case _:
                    return state

        case RefetchRequested() as asked, Kept():
            return _after_request(state, asked)
        case LinksRenewed() as renewed, Kept():
            return _after_renewal(state, renewed)
        case LinksNotRenewed() as refused, Kept():
            return _after_refusal(state, refused)

        case (
            (
                GenerationCompleted()
                | MediaStored()
                | MigrationAttemptFailed()
                | MediaLost()
                | ObjectLost()
                | MigrationCompleted()
                | QuarantineReleased()
                | QuarantineRejected()
                | RefetchRequested()
                | LinksRenewed()
                | LinksNotRenewed()
            ),
            _,
        ):
            return state  # completed twice, or about a generation that is not completed
        case (
            (
                GenerationRequested()
                | SubmissionStarted()
                | GenerationSubmitted()
                | GenerationFailed()
                | GenerationCancelled()
                | StorageFailed()
                | SourcesDeleted()
                | UnknownEvent()
            ),
            _,
        ):
            return state  # StorageFailed too: an output without a stored object says the same


def fold(envelopes: Iterable[Envelope]) -> State:
    """The state after a whole history, both aggregates in the order of the log."""
    return reduce(evolve, envelopes, Absent())


def _at_first(output: Output) -> OutputState:
    past = Past(Link(output.source_url, output.expires_at))
    if output.stored is not None:
        return Stored(output.stored, at_once=True, past=past)
    return Missing(past)


def _after_failure(
    before: OutputState | None, failed: MigrationAttemptFailed
) -> OutputState | None:
    match before:
        # Given up on, and tried again on a person's word: what may help from now on is tried.
        case Missing(past=past) | Lost(past=past, rejected=None) if failed.attempt > past.attempts:
            return Missing(replace(past, attempts=failed.attempt), failed.reason, failed.detail)
        case _:
            return before


def _after_loss(before: OutputState | None, lost: MediaLost) -> OutputState | None:
    match before:
        case Missing(past=past) | AwaitingLink(past=past) | Lost(past=past, rejected=None) if (
            # Said for the first time, and about the newest link: a new one may have come while
            # the old one was given up on.
            (lost.loss or 1) == past.losses + 1 and (lost.link or 0) == past.link.request
        ):
            attempts = max(past.attempts, lost.attempt)
            return Lost(replace(past, attempts=attempts, losses=past.losses + 1), lost.reason)
        case _:
            return before


def _after_object_lost(before: OutputState | None, lost: ObjectLost) -> OutputState | None:
    match before:
        case Stored(object=stored, past=Past() as past) if (
            stored.key == lost.object_key and lost.loss == past.vanished + 1
        ):
            return Lost(replace(past, vanished=lost.loss), lost.reason)
        case _:
            return before


def _after_request(state: Kept, asked: RefetchRequested) -> Kept:
    for index in asked.indexes:
        match state.outputs.get(index):
            case Missing(past=past, reason=reason, detail=detail) if (
                reason is not None and asked.request > past.asked
            ):
                past = replace(past, requests=past.requests + 1, asked=asked.request)
                waiting = AwaitingLink(past, reason, detail, asked.answer_by)
                state = _with(state, index, waiting)
            case _:
                pass
    return replace(state, last_request=max(state.last_request, asked.request))


def _after_renewal(state: Kept, renewed: LinksRenewed) -> Kept:
    for link in renewed.links:
        match state.outputs.get(link.index):
            # An answer that comes late helps too, whatever was decided without it.
            case Missing(past=past) | AwaitingLink(past=past) | Lost(past=past, rejected=None) if (
                past.waits_for(renewed.request)
            ):
                newest = Link(link.source_url, link.expires_at, renewed.request)
                state = _with(state, link.index, Missing(replace(past, link=newest)))
            case _:
                pass
    return state


def _after_refusal(state: Kept, refused: LinksNotRenewed) -> Kept:
    for index, output in state.outputs.items():
        match output:
            case AwaitingLink(past=past) if past.waits_for(refused.request):
                state = _with(state, index, replace(output, refusal=refused.detail))
            case _:
                pass
    return state


def _with(state: Kept, index: int, output: OutputState | None) -> Kept:
    if output is None or index not in state.outputs:
        return state
    return replace(state, outputs={**state.outputs, index: output})
