"""What one generation's events add up to, and nothing that no decision reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from shared.contracts.envelope import UnknownEvent
from shared.contracts.events import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    GenerationRequested,
    GenerationSubmitted,
    MediaLost,
    MediaStored,
    MigrationAttemptFailed,
    MigrationCompleted,
    StorageFailed,
    SubmissionStarted,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
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

    `request` is None for media that another service made; `submitted` where the provider never
    answered.
    """

    request: GenerationRequested | None
    submitted: GenerationSubmitted | None
    outcome: Outcome


State = Absent | Requested | Submitting | Running | Done


def evolve(state: State, envelope: Envelope) -> State:
    """The state after one event. Events that the state has no use for change nothing."""
    match envelope.data, state:
        case GenerationRequested() as request, Absent():
            return Requested(request)
        case SubmissionStarted(attempt=attempt), (
            Requested(request=request) | Submitting(request=request)
        ):
            return Submitting(request, attempt, envelope.time)
        case GenerationSubmitted() as submitted, (
            Requested(request=request) | Submitting(request=request)
        ):
            return Running(request, submitted, envelope.time)
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
                | UnknownEvent()
            ),
            _,
        ):
            return state  # no decision here depends on where the bytes are


def fold(envelopes: Iterable[Envelope]) -> State:
    """The state after a whole history."""
    return reduce(evolve, envelopes, Absent())


def _request(state: State) -> GenerationRequested | None:
    return None if isinstance(state, Absent | Done) else state.request


def _submitted(state: State) -> GenerationSubmitted | None:
    return state.submitted if isinstance(state, Running) else None
