"""What one generation's events add up to, and nothing that no decision reads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING

from shared.contracts.envelope import UnknownEvent
from shared.contracts.events import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    GenerationRequested,
    GenerationSubmitted,
    LinksNotRenewed,
    LinksRenewed,
    MediaLost,
    MediaStored,
    MigrationAttemptFailed,
    MigrationCompleted,
    ObjectLost,
    QuarantineRejected,
    QuarantineReleased,
    RefetchRequested,
    SourcesDeleted,
    StorageFailed,
    SubmissionStarted,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

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
    """Paid call `attempt` was announced and nothing is known of its outcome."""

    request: GenerationRequested
    attempt: int
    claim: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Running:
    """The provider took it."""

    request: GenerationRequested
    submitted: GenerationSubmitted
    submitted_at: datetime


@dataclass(frozen=True, slots=True)
class Done:
    """Completed, failed or cancelled, for good.

    `request` is None for media that another service made; `submitted` as long as no answer of the
    provider is known, which may come after the end. `answered` are the numbers of the requests for
    new links that have an answer, `renewed` what they gave, by output; with `sources_deleted` the
    provider keeps no copy any more.
    """

    request: GenerationRequested | None
    submitted: GenerationSubmitted | None
    outcome: Outcome
    answered: frozenset[int] = frozenset()
    renewed: Mapping[int, str] = field(default_factory=dict[int, str])
    sources_deleted: bool = False


State = Absent | Requested | Submitting | Running | Done


# One table, read from top to bottom: split up, nobody could see that it covers everything.
def evolve(state: State, envelope: Envelope) -> State:  # noqa: C901, PLR0911
    """The state after one event. Events that the state has no use for change nothing."""
    match envelope.data, state:
        case GenerationRequested() as request, Absent():
            return Requested(request)
        case SubmissionStarted(attempt=attempt, claim=claim), (
            Requested(request=request) | Submitting(request=request)
        ):
            return Submitting(request, attempt, claim, envelope.time)
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
            return Done(_request(state), _submitted(state), outcome)
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
            return False  # the provider said so itself, or was told to stop when it was given up


def fold(envelopes: Iterable[Envelope]) -> State:
    """The state after a whole history."""
    return reduce(evolve, envelopes, Absent())


def _request(state: State) -> GenerationRequested | None:
    return None if isinstance(state, Absent | Done) else state.request


def _submitted(state: State) -> GenerationSubmitted | None:
    return state.submitted if isinstance(state, Running) else None
