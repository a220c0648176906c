"""What one generation's events add up to, and nothing that no decision reads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
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

    from shared.contracts.envelope import Envelope

Outcome = GenerationCompleted | GenerationFailed | GenerationCancelled


@dataclass(frozen=True, slots=True)
class Absent:
    """No events: nobody asked."""


@dataclass(frozen=True, slots=True)
class Requested:
    """Asked for, and no paid call announced yet."""

    request: GenerationRequested


@dataclass(frozen=True, slots=True)
class Submitting:
    """Paid call `attempt` was announced and nothing is known of its outcome.

    Of the calls before it, `not_taken` were certainly not taken; the first was announced at
    `first_at`.
    """

    request: GenerationRequested
    attempt: int
    claim: str
    started_at: datetime
    first_at: datetime
    not_taken: int = 0


@dataclass(frozen=True, slots=True)
class Running:
    """The provider took it."""

    request: GenerationRequested
    submitted: GenerationSubmitted
    submitted_at: datetime


@dataclass(frozen=True, slots=True)
class Done:
    """Completed, failed or cancelled; for good, but for what only we gave up on.

    `request` is None for media that another service made; `submitted` as long as no answer of the
    provider is known, which may come after the end. `answered` are the numbers of the requests for
    new links that have an answer, `renewed` what they gave, by output; with `sources_deleted` the
    provider keeps no copy any more. `open_since` is when a provider began on what was given up on,
    and may still report; None where the end is for good.
    """

    request: GenerationRequested | None
    submitted: GenerationSubmitted | None
    outcome: Outcome
    answered: frozenset[int] = frozenset()
    renewed: Mapping[int, str] = field(default_factory=dict[int, str])
    sources_deleted: bool = False
    open_since: datetime | None = None


State = Absent | Requested | Submitting | Running | Done


# One table, read from top to bottom: split up, nobody could see that it covers everything.
def evolve(state: State, envelope: Envelope) -> State:  # noqa: C901, PLR0911
    """The state after one event. Events that the state has no use for change nothing."""
    match envelope.data, state:
        case GenerationRequested() as request, Absent():
            return Requested(request)
        case SubmissionStarted() as started, (
            Requested(request=request) | Submitting(request=request)
        ):
            first_at = state.first_at if isinstance(state, Submitting) else envelope.time
            return Submitting(
                request,
                started.attempt,
                started.claim,
                envelope.time,
                first_at,
                started.not_taken or 0,
            )
        case GenerationSubmitted() as submitted, (
            Requested(request=request) | Submitting(request=request)
        ):
            return Running(request, submitted, envelope.time)
        case GenerationSubmitted() as submitted, Done(submitted=None):
            return replace(state, submitted=submitted)
        case LinksRenewed(request=answered, links=links), Done():
            renewed = {**state.renewed, **{link.index: link.source_url for link in links}}
            return replace(state, answered=state.answered | {answered}, renewed=renewed)
        case LinksNotRenewed(request=answered), Done():
            return replace(state, answered=state.answered | {answered})
        case SourcesDeleted(), Done():
            return replace(state, sources_deleted=True)
        case (
            (GenerationCompleted() | GenerationFailed() | GenerationCancelled()) as outcome,
            (Absent() | Requested() | Submitting() | Running()),
        ):
            return Done(
                _request(state), _submitted(state), outcome, open_since=_open_since(state, outcome)
            )
        case GenerationCompleted() as completed, Done(open_since=datetime()):
            return replace(state, outcome=completed, open_since=None)
        case (
            (
                GenerationRequested()
                | SubmissionStarted()
                | GenerationSubmitted()
                | GenerationCompleted()
                | GenerationFailed()
                | GenerationCancelled()
            ),
            _,
        ):
            return state  # what comes after the end, or twice, changes nothing
        case (
            (
                StorageFailed()
                | MediaStored()
                | MigrationAttemptFailed()
                | MigrationCompleted()
                | MediaLost()
                | ObjectLost()
                | QuarantineReleased()
                | QuarantineRejected()
                | RefetchRequested()
                | LinksRenewed()
                | LinksNotRenewed()
                | SourcesDeleted()
                | UnknownEvent()
            ),
            _,
        ):
            return state  # no decision here depends on where the bytes are


def is_unwanted(request_id: str, done: Done) -> bool:
    """Whether the provider may still be working on this request, and for nobody."""
    match done.outcome:
        case GenerationCancelled():
            return True
        case GenerationCompleted(request_id=made):
            return made != request_id
        case GenerationFailed():
            return False  # the provider said so itself, or its result is still welcome


def fold(envelopes: Iterable[Envelope]) -> State:
    """The state after a whole history."""
    return reduce(evolve, envelopes, Absent())


def _request(state: State) -> GenerationRequested | None:
    return None if isinstance(state, Absent | Done) else state.request


def _open_since(state: State, outcome: Outcome) -> datetime | None:
    """Since when a provider may be at work, where an end is only that we stopped waiting for it."""
    match outcome, state:
        case GenerationFailed(given_up=True), (
            Submitting(first_at=since) | Running(submitted_at=since)
        ):
            return since
        case _:
            return None


def _submitted(state: State) -> GenerationSubmitted | None:
    return state.submitted if isinstance(state, Running) else None
