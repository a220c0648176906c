"""What a person is shown of the backlog, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from shared.contracts.reasons import ReasonCode
    from storage_svc.application.backlog import OutputRef


@dataclass(frozen=True, slots=True)
class BacklogSummary:
    """The backlog in one look.

    Attributes:
        pending: outputs that only the provider has.
        at_risk: of these, the ones whose link dies within three times a recent slow copy.
        overdue: of these, the ones whose link should be dead, and was not found to be.
        running: of these, the ones somebody copies now.
        soonest_death: of a pending output's link.
        p95_copy_s: how long a slow copy took recently.
        awaiting_link: outputs whose link is dead and who may get a new one.
        lost: outputs that were given up on.
        quarantined: of these, the ones whose bytes are no media, until a person has seen them.
        reasons: pending outputs by what their last attempt failed for.
    """

    pending: int
    at_risk: int
    overdue: int
    running: int
    soonest_death: datetime | None
    stored: int
    stored_bytes: int
    awaiting_link: int
    lost: int
    quarantined: int
    p95_copy_s: float
    reasons: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class WaitingOutput:
    """One output that is not stored, as a person wants to see it.

    Attributes:
        at: when it is tried next or, for a lost one, when it was lost.
        state: as the backlog names it: pending, awaiting_link, lost.
    """

    ref: OutputRef
    user_id: str
    provider: str
    source_host: str
    dies_at: datetime
    attempts: int
    at: datetime
    state: str
    reason: str | None
    detail: str | None
    running: bool


@dataclass(frozen=True, slots=True)
class QuarantinedOutput:
    """One output whose bytes are no media, for a person to judge.

    Attributes:
        looks_like: the type that the bytes look like.
        dies_at: until when its link lives, as far as anybody promised.
    """

    ref: OutputRef
    user_id: str
    provider: str
    source_url: str
    source_host: str
    looks_like: str | None
    detail: str
    quarantined_at: datetime
    dies_at: datetime


class BacklogReport(Protocol):
    """Reads the backlog; raises BacklogUnavailable where the database does not answer."""

    async def summary(self, now: datetime) -> BacklogSummary:
        """The backlog in one look."""
        ...

    async def waiting(
        self,
        now: datetime,
        *,
        max_rows: int,
        dies_before: datetime | None = None,
        reason: ReasonCode | None = None,
    ) -> list[WaitingOutput]:
        """What waits, the soonest death first; of what still lives, only what dies so soon."""
        ...

    async def lost(
        self, *, max_rows: int, reasons: Sequence[ReasonCode] | None = None
    ) -> list[WaitingOutput]:
        """What was given up on, the latest first."""
        ...

    async def quarantined(self, *, max_rows: int) -> list[QuarantinedOutput]:
        """What a person should look at, the soonest death first."""
        ...
