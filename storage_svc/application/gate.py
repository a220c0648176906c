"""Keeps workers from burning attempts where every attempt would fail: one circuit for the bucket,
one a source host. It lives in the memory of one process; nothing is lost with it.
"""  # noqa: D205 - one sentence, longer than a line

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from shared.contracts.reasons import ReasonCode
from storage_svc.application.store_output import (
    AlreadySettled,
    AwaitsLink,
    FailedNow,
    LostNow,
    Outcome,
    StoredNow,
)
from storage_svc.domain.circuit import Circuit
from storage_svc.domain.policies import Cause, cause_of

if TYPE_CHECKING:
    from datetime import datetime

    from storage_svc.application.backlog import Lease

BUCKET_REASONS = tuple(reason for reason in ReasonCode if cause_of(reason) is Cause.BUCKET)

# When the bucket or a host is back, this many copies at once, then twice as many with each success:
# what waited comes back as a slope and not as a wall.
_FIRST_RAMP = 2


@dataclass(frozen=True, slots=True)
class Admission:
    """What may be leased now.

    Attributes:
        max_rows: how many outputs.
        closed_hosts: not from these: they are down, or just back and have as much as they may.
        probed_hosts: one from each of these, which are down and due to be tried.
        changes_at: when more may be allowed without any report; None: nothing is held back.
    """

    max_rows: int
    closed_hosts: frozenset[str]
    probed_hosts: frozenset[str]
    changes_at: datetime | None


class Gate:
    """Told of every start and end of a copy; says what may start next."""

    def __init__(self) -> None:
        self._bucket = Circuit()
        self._hosts: dict[str, Circuit] = {}
        self._at_work: Counter[str] = Counter()
        self._ramp: int | None = None
        self._host_ramps: dict[str, int] = {}
        self.bucket_back_at: datetime | None = None

    @property
    def bucket_is_away(self) -> bool:
        """Whether copies wait for the bucket."""
        return self._bucket.is_open

    def admits(self, now: datetime, *, free: int, running: int) -> Admission:
        """What may be leased, with `free` workers idle and `running` at work."""
        room = free if self._ramp is None else max(0, min(free, self._ramp - running))
        allowed = self._bucket.allows(now)
        closed = {host: c for host, c in self._hosts.items() if c.allows(now) == 0}
        full = frozenset(filter(self._is_full, self._host_ramps))
        probed = frozenset(host for host, c in self._hosts.items() if c.allows(now) == 1) - full
        waits = [c.opens_until for c in (self._bucket, *closed.values()) if c.opens_until]
        return Admission(
            max_rows=room if allowed is None else min(room, allowed),
            closed_hosts=full.union(closed),
            probed_hosts=probed,
            changes_at=min(waits, default=None),
        )

    def starts(self, lease: Lease, now: datetime) -> bool:
        """Whether this copy may start now; what may is counted as started."""
        host = self._hosts.get(lease.source_host, Circuit())
        if self._bucket.allows(now) == 0 or host.allows(now) == 0:
            return False
        if self._is_full(lease.source_host):
            return False
        self._at_work[lease.source_host] += 1
        self._bucket = self._bucket.started()
        self._keep(lease.source_host, host.started())
        return True

    def ended(self, lease: Lease, outcome: Outcome | None, now: datetime) -> None:
        """What came of a copy; None: nobody knows."""
        host = self._hosts.get(lease.source_host, Circuit())
        self._at_work[lease.source_host] -= 1
        if not self._at_work[lease.source_host]:
            del self._at_work[lease.source_host]
        match outcome:
            case None | AlreadySettled() | AwaitsLink(tried=False) | LostNow(tried=False):
                self._bucket = self._bucket.ended()
                self._keep(lease.source_host, host.ended())
            case StoredNow():
                self._bucket_works(now)
                self._host_works(lease.source_host, host)
            case FailedNow(reason=reason) | AwaitsLink(reason=reason) | LostNow(reason=reason):
                self._failed(lease.source_host, host, reason, now)
            case _:
                assert_never(outcome)

    def _failed(self, name: str, host: Circuit, reason: ReasonCode, now: datetime) -> None:
        match cause_of(reason):
            case Cause.BUCKET:
                self._bucket = self._bucket.failed(now)
                self._keep(name, host.ended())
            case Cause.SETTINGS:
                # Nobody was asked; but the next one of this host will be forbidden as well.
                self._bucket = self._bucket.ended()
                self._keep(name, host.failed(now))
            case Cause.SOURCE if reason is not ReasonCode.SOURCE_FORBIDDEN:
                self._bucket = self._bucket.ended()
                self._keep(name, host.failed(now))
            case Cause.SOURCE | Cause.GONE | Cause.CONTENT:
                # The host answered, about this one output: the host itself is well.
                self._bucket = self._bucket.ended()
                self._host_works(name, host)
            case Cause.COPY:
                self._bucket = self._bucket.ended()
                self._keep(name, host.ended())

    def _bucket_works(self, now: datetime) -> None:
        if self._bucket.is_open:
            self.bucket_back_at = now
            self._ramp = _FIRST_RAMP
        elif self._ramp is not None:
            self._ramp = self._ramp * 2 if self._ramp < _RAMP_IS_OVER else None
        self._bucket = self._bucket.succeeded()

    def _host_works(self, name: str, host: Circuit) -> None:
        if host.is_open:
            self._host_ramps[name] = _FIRST_RAMP
        elif (ramp := self._host_ramps.pop(name, _RAMP_IS_OVER)) < _RAMP_IS_OVER:
            self._host_ramps[name] = ramp * 2
        self._keep(name, host.succeeded())

    def _is_full(self, name: str) -> bool:
        return self._at_work[name] >= self._host_ramps.get(name, _RAMP_IS_OVER)

    def _keep(self, name: str, circuit: Circuit) -> None:
        # A circuit at rest says nothing: hosts come and go, and are not remembered for ever.
        if circuit == Circuit():
            self._hosts.pop(name, None)
        else:
            self._hosts[name] = circuit


_RAMP_IS_OVER = 1024  # more copies at once than one process ever runs
