"""What a projector says of itself, and what it is told about its patience."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


class ProjectorState(StrEnum):
    """What a projector is doing."""

    STARTING = "starting"
    STANDING_BY = "standing by"  # another process projects
    PROJECTING = "projecting"
    WAITING = "waiting"  # for Postgres or the log to come back
    REFUSING = "refusing"  # until a person rebuilds or restores
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ProjectorHealth:
    """How a projector does.

    Attributes:
        position: of the last event whose effect this process wrote or found; None before that.
        log_end: the log's last position when asked; None when it did not answer.
        last_progress_at: when a batch was last written here.
        parked: how many events are put aside.
        reason: why it waits or refuses.
    """

    state: ProjectorState
    position: int | None
    log_end: int | None
    last_progress_at: datetime | None
    parked: int
    reason: str | None

    @property
    def problem(self) -> str | None:
        """What keeps it from projecting; None where this process does, or another one.

        It begins with the state, which tells what passes by itself from what a person has to mend.
        """
        if self.state in {ProjectorState.PROJECTING, ProjectorState.STANDING_BY}:
            return None
        return f"{self.state}: {self.reason}" if self.reason else f"{self.state}"

    @property
    def lag(self) -> int | None:
        """How many events the read model is behind; None where that is not known."""
        if self.position is None or self.log_end is None:
            return None
        return max(self.log_end - self.position, 0)


@dataclass(frozen=True, slots=True)
class ProjectorTiming:
    """How often and for how long a projector tries.

    Attributes:
        standby_interval_s: between two tries to become the active one.
        first_pause_s: after the first failure; it doubles with each further one.
        longest_pause_s: the most that it grows to.
        look_again_s: how often it is seen that the log it projects is still whole.
        drain_s: how long stopping waits for the batch that is being written.
        attempts: how often an event over which processes die is tried alone before it is parked.
        fold_limit_s: a fold that takes longer for one batch ends the process, which counts as such
            a death; None: it is waited for.
    """

    standby_interval_s: float = 1.0
    first_pause_s: float = 0.1
    longest_pause_s: float = 5.0
    look_again_s: float = 15.0
    drain_s: float = 10.0
    attempts: int = 3
    fold_limit_s: float | None = 60.0
