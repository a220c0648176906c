"""What can be recorded about one output. Facts arrive as data: times, attempts, objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from shared.contracts.events import StoredObject
    from shared.contracts.reasons import ReasonCode


@dataclass(frozen=True, slots=True)
class RecordStored:
    """Output `index` is in the bucket, verified, by attempt number `attempt` (from 1)."""

    index: int
    attempt: int
    object: StoredObject
    took_s: float


@dataclass(frozen=True, slots=True)
class RecordAttemptFailed:
    """Attempt number `attempt` (from 1) did not store output `index`; another may."""

    index: int
    attempt: int
    reason: ReasonCode
    detail: str
    retry_at: datetime


@dataclass(frozen=True, slots=True)
class RecordLost:
    """Output `index` can never be stored, as attempt number `attempt` (from 1) found out."""

    index: int
    attempt: int
    reason: ReasonCode
    detail: str


Command = RecordStored | RecordAttemptFailed | RecordLost
