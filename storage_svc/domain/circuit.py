"""A circuit breaker as data: what it allows now, and what each report makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

TRIPS_AFTER = 4  # failures without a success between them
FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Circuit:
    """Closed while work goes well; open after failures in a row, but for one probe at a time.

    Attributes:
        failures: in a row.
        opens_until: before this moment not even a probe; None while the circuit is closed.
        pause: how long the last pause was.
        probing: whether somebody is finding out now.
    """

    failures: int = 0
    opens_until: datetime | None = None
    pause: timedelta = timedelta(0)
    probing: bool = False

    @property
    def is_open(self) -> bool:
        """Whether work waits."""
        return self.opens_until is not None

    def allows(self, now: datetime) -> int | None:
        """How many may start now: None is any number, 1 is the probe, 0 is nobody."""
        if self.opens_until is None:
            return None
        return int(not self.probing and now >= self.opens_until)

    def started(self) -> Circuit:
        """Somebody started; while the circuit is open that is the probe."""
        if not self.is_open:
            return self
        return Circuit(self.failures, self.opens_until, self.pause, probing=True)

    def failed(self, now: datetime) -> Circuit:
        """A failure that this circuit is about."""
        failures = self.failures + 1
        if self.is_open:
            if not self.probing:
                return self  # started before the circuit opened: it tells nothing new
            pause = min(self.pause * 2, LONGEST_PAUSE)
            return Circuit(failures, now + pause, pause)
        if failures < TRIPS_AFTER:
            return Circuit(failures)
        return Circuit(failures, now + FIRST_PAUSE, FIRST_PAUSE)

    def succeeded(self) -> Circuit:
        """Work went well: closed, whoever it was."""
        return Circuit()

    def ended(self) -> Circuit:
        """Somebody ended and told nothing about this circuit: the next one is the probe."""
        return Circuit(self.failures, self.opens_until, self.pause)
