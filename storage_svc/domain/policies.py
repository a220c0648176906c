"""What to do about a failed copy: each reason has its answer here, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import assert_never

from shared.contracts.reasons import ReasonCode

FIRST_DELAY = timedelta(seconds=2)
LONGEST_DELAY = timedelta(minutes=10)
# Near the death of a link the delays halve towards it; below this they would be full speed.
SHORTEST_DELAY = timedelta(seconds=1)
_DOUBLINGS = 16  # 2 s doubled so often is beyond the longest delay; more would overflow
# A link that has outlived its promise is worth so much more time of a copy that fails by itself.
BEYOND_DEATH = timedelta(days=1)
AT_RISK_FACTOR = 3  # how many recent p95 copies must still fit before a link's death


class Cause(Enum):
    """What a failure is about, which decides what can help."""

    BUCKET = auto()
    """Our side of the copy: the same link will do when the bucket is back."""
    SOURCE = auto()
    """The link did not deliver, and may later."""
    GONE = auto()
    """The link says that the bytes are not there any more."""
    SETTINGS = auto()
    """Our own settings forbid the link, or where it leads: a person may change them in time."""
    CONTENT = auto()
    """What the link leads to will not be kept: a person may think otherwise."""
    COPY = auto()
    """The copy went wrong in a way that blames neither side."""


def cause_of(reason: ReasonCode) -> Cause:
    """The cause behind a reason code."""
    match reason:
        case (
            ReasonCode.BUCKET_UNAVAILABLE | ReasonCode.CREDENTIALS_REFUSED | ReasonCode.BUCKET_FULL
        ):
            return Cause.BUCKET
        case ReasonCode.SOURCE_UNAVAILABLE | ReasonCode.SOURCE_FORBIDDEN | ReasonCode.TOO_SLOW:
            return Cause.SOURCE
        case ReasonCode.SOURCE_EXPIRED:
            return Cause.GONE
        case ReasonCode.BLOCKED_ADDRESS:
            return Cause.SETTINGS
        case ReasonCode.TOO_LARGE | ReasonCode.MEDIA_TYPE_REFUSED:
            return Cause.CONTENT
        case ReasonCode.CHECKSUM_MISMATCH | ReasonCode.INTERNAL:
            return Cause.COPY
        case _:
            assert_never(reason)


@dataclass(frozen=True, slots=True)
class Refetching:
    """How far asking for new links goes.

    Attributes:
        max_requests: for one output; 0 asks for none.
        window: how long an answer is waited for.
    """

    max_requests: int = 2
    window: timedelta = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One failed copy, with all that the answer to it depends on.

    Attributes:
        attempt: its number, from 1.
        previous_reason: why the attempt before it failed.
        dies_at: when the link dies, as the provider declared it.
        retry_after_s: how long the other side asked to be left alone.
        jitter: from 0 to 1, so that what failed together does not come back together.
        may_ask: whether somebody can be asked for a new link.
    """

    reason: ReasonCode
    attempt: int
    previous_reason: ReasonCode | None
    failed_at: datetime
    dies_at: datetime
    retry_after_s: float | None
    jitter: float
    may_ask: bool = False


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Another attempt may help, from `at` on."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Refetch:
    """This link will not help any more, and a new one may."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No attempt of ours can help."""


Answer = TryAgain | Refetch | GiveUp


def answer_to(failure: FailedAttempt) -> Answer:
    """Whether to try again, and when."""
    dead = failure.failed_at >= failure.dies_at
    twice = failure.previous_reason is failure.reason
    match cause_of(failure.reason):
        case Cause.CONTENT:
            return GiveUp()
        case Cause.GONE:
            # One edge of a delivery network may not have the file yet, or any more, while the
            # link lives: it is believed when it says so twice.
            return _without_this_link(failure) if dead or twice else _again(failure)
        case Cause.SOURCE:
            forbidden = failure.reason is ReasonCode.SOURCE_FORBIDDEN
            # A signature that ran out before its time looks like this.
            ran_out = twice and failure.may_ask and forbidden
            return _without_this_link(failure) if dead or ran_out else _again(failure)
        case Cause.SETTINGS:
            # A provider moves to a host that nobody has allowed yet, or somebody's shell lacks
            # the setting: what the link still has is not lost by that.
            return _without_this_link(failure) if dead else _again(failure)
        case Cause.COPY:
            # A full spool says nothing of the link, and a mistake of ours does not pass by itself:
            # so there is an end, and it is far.
            outlived = failure.failed_at >= failure.dies_at + BEYOND_DEATH
            return _without_this_link(failure) if outlived else _again(failure)
        case Cause.BUCKET:
            # Past its declared death a link may still serve, and only asking it tells. So the
            # output waits for the bucket: nothing is given up on because of our own side.
            return _again(failure)


def _without_this_link(failure: FailedAttempt) -> Refetch | GiveUp:
    return Refetch() if failure.may_ask else GiveUp()


def retry_at(
    now: datetime,
    attempt: int,
    dies_at: datetime,
    jitter: float,
    *,
    retry_after_s: float | None = None,
) -> datetime:
    """When to try again: exponential with jitter, never past the moment the link dies.

    At most half of the time that is left goes by unused, whatever the other side asked for
    (`retry_after_s`), so a long outage that ends just before the death still finds attempts
    after its end. For a link that is dead already the delay alone counts.

    Args:
        now: when the attempt failed.
        attempt: the number of the attempt that failed, from 1.
        dies_at: when the link dies.
        jitter: from 0 to 1.
        retry_after_s: what the other side asked for.
    """
    full = min(FIRST_DELAY * 2 ** min(attempt - 1, _DOUBLINGS), LONGEST_DELAY)
    delay = (full * (0.5 + 0.5 * jitter)).total_seconds()
    # Seconds, not timedeltas: a server may ask for more than a timedelta can hold.
    delay = max(delay, retry_after_s or 0.0, SHORTEST_DELAY.total_seconds())
    left = (dies_at - now).total_seconds()
    if left <= 0:
        return now + timedelta(seconds=min(delay, LONGEST_DELAY.total_seconds()))
    halved = max(min(delay, left / 2), SHORTEST_DELAY.total_seconds())
    return min(now + timedelta(seconds=halved), dies_at)


def _again(failure: FailedAttempt) -> TryAgain:
    return TryAgain(
        retry_at(
            failure.failed_at,
            failure.attempt,
            failure.dies_at,
            failure.jitter,
            retry_after_s=failure.retry_after_s,
        )
    )
