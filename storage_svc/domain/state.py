"""What the events of one generation add up to for the service that keeps its media.

Both aggregates of a generation are folded together, in the order of the log: what there is to
keep is said by `velro.generation.<id>`, what became of it by `velro.storage.<id>`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    QuarantineRejected,
    QuarantineReleased,
    RefetchRequested,
    SourcesDeleted,
    StorageFailed,
    SubmissionStarted,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shared.contracts.envelope import Envelope
    from shared.contracts.events import StoredObject
    from shared.contracts.reasons import ReasonCode


@dataclass(frozen=True, slots=True)
class Missing:
    """Only the provider has the bytes; `attempts` copies failed so far, the last for `reason`."""

    attempts: int = 0
    reason: ReasonCode | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """In the bucket; `at_once` where the publisher of the generation had stored it itself."""

    object: StoredObject
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """Given up after `attempts` attempts. Bytes that turn up all the same are kept."""

    attempts: int
    reason: ReasonCode


OutputState = Missing | Stored | Lost


@dataclass(frozen=True, slots=True)
class Absent:
    """The generation is not completed: there is nothing to keep."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The generation is completed: what it made, and where each output is, by index."""

    completed: GenerationCompleted
    outputs: Mapping[int, OutputState]
    migration_completed: bool = False


State = Absent | Kept


# One table, read from top to bottom: split up, nobody could see that it covers everything.
def evolve(state: State, envelope: Envelope) -> State:  # noqa: PLR0911
    """The state after one event. What cannot follow changes nothing."""
    match envelope.data, state:
        case GenerationCompleted() as completed, Absent():
            return Kept(
                completed, {output.index: _at_first(output.stored) for output in completed.outputs}
            )
        case MediaStored(index=index, object=stored), Kept() if index in state.outputs:
            return _with(state, index, Stored(stored))
        case MigrationAttemptFailed(index=index, attempt=attempt, reason=reason), Kept():
            match state.outputs.get(index):
                case Missing(attempts=known) if attempt > known:
                    return _with(state, index, Missing(attempt, reason))
                case _:
                    return state
        case MediaLost(index=index, attempt=attempt, reason=reason), Kept():
            match state.outputs.get(index):
                case Missing():
                    return _with(state, index, Lost(attempt, reason))
                case _:
                    return state
        case MigrationCompleted(), Kept():
            return replace(state, migration_completed=True)
        case (
            (
                GenerationCompleted()
                | MediaStored()
                | MigrationAttemptFailed()
                | MediaLost()
                | MigrationCompleted()
            ),
            _,
        ):
            return state  # completed twice, or about an output that is not there or is settled
        case (
            (
                GenerationRequested()
                | SubmissionStarted()
                | GenerationSubmitted()
                | GenerationFailed()
                | GenerationCancelled()
                | StorageFailed()
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
            return state  # StorageFailed too: an output without a stored object says the same


def fold(envelopes: Iterable[Envelope]) -> State:
    """The state after a whole history, both aggregates in the order of the log."""
    return reduce(evolve, envelopes, Absent())


def _at_first(stored: StoredObject | None) -> OutputState:
    return Missing() if stored is None else Stored(stored, at_once=True)


def _with(state: Kept, index: int, output: OutputState) -> Kept:
    return replace(state, outputs={**state.outputs, index: output})
