"""What can be recorded about one output. Facts arrive as data: times, attempts, objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from shared.contracts.facts import StoredObject
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
    """Output `index` can never be stored, as attempt number `attempt` (from 1) found out.

    Attributes:
        link: the request that brought the link it was tried on, 0 for the completion's own.
        media_type: what the bytes look like, where they are refused for that.
    """

    index: int
    attempt: int
    reason: ReasonCode
    detail: str
    link: int = 0
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class RecordObjectLost:
    """The object `object_key` of output `index` is gone or damaged, and no link gives it again."""

    index: int
    object_key: str
    reason: ReasonCode
    detail: str


@dataclass(frozen=True, slots=True)
class AskForLink:
    """Attempt number `attempt` found the link dead; whoever made it may give a new one.

    Attributes:
        link: the request that brought the dead link, 0 for the completion's own.
        answer_by: when the output is given up on without an answer.
    """

    index: int
    attempt: int
    reason: ReasonCode
    detail: str
    answer_by: datetime
    link: int = 0


@dataclass(frozen=True, slots=True)
class EndWaiting:
    """It is `at` now: output `index` is lost if its new link was refused, or is overdue."""

    index: int
    at: datetime


@dataclass(frozen=True, slots=True)
class ReleaseQuarantined:
    """A person wants the bytes of output `index` as they are, though they are no media."""

    index: int


@dataclass(frozen=True, slots=True)
class RejectQuarantined:
    """A person has seen what output `index` is, and does not want it, for the reason `why`."""

    index: int
    why: str


Command = (
    RecordStored
    | RecordAttemptFailed
    | RecordLost
    | RecordObjectLost
    | AskForLink
    | EndWaiting
    | ReleaseQuarantined
    | RejectQuarantined
)
