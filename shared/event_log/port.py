"""The log as a port. JetStream is one implementation, memory the other; one suite holds both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NewType, Protocol

from shared.errors import Conflict, Refused, TryLater, VelroError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Sequence

    from shared.contracts.envelope import Envelope, Recorded
    from shared.contracts.facts import Family

ExpectedVersion = NewType("ExpectedVersion", int)
"""The position of the aggregate's last event that a decision was made on."""

NOTHING_YET = ExpectedVersion(0)
"""The decision was made on an aggregate without events."""

MAX_BATCH_EVENTS = 1000
"""As many events can be appended all or none: the server's limit for one atomic batch."""

APPEND_PATIENCE_S: Final = 9.0
"""How long a decision is repeated on a log that does not answer. Whoever waits for it waits half a
minute, and one append five seconds."""


@dataclass(frozen=True, slots=True)
class Appended:
    """Where the last event appended now stands.

    Attributes:
        position: its position in the log, to wait for in a read model.
        duplicate: the log had the event already; nothing was written.
    """

    position: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """All events of one aggregate, oldest first, and the version to append against."""

    events: tuple[Recorded, ...]
    version: ExpectedVersion


@dataclass(frozen=True, slots=True)
class Addition:
    """What `append_all` adds to one aggregate: all of its events, or none of them.

    Attributes:
        expected: the aggregate's version before; None: whatever is there.
    """

    family: Family
    generation_id: str
    events: tuple[Envelope, ...]
    expected: ExpectedVersion | None = NOTHING_YET


@dataclass(frozen=True, slots=True)
class Added:
    """What became of the next additions, in the order they were given.

    Attributes:
        additions: how many additions this speaks of.
        position: of the last event written; 0 where none was.
        events_written: how many events are new in the log.
        events_there_before: how many the log had already, from an earlier run.
        conflicts: additions that were left out, because their aggregate has other events.
    """

    additions: int
    position: int
    events_written: int
    events_there_before: int
    conflicts: tuple[Addition, ...] = ()


@dataclass(frozen=True, slots=True)
class RawRecord:
    """An event as bytes, for readers that decode many or keep what cannot be decoded."""

    position: int
    subject: str
    data: bytes


@dataclass(frozen=True, slots=True)
class WholeRecord(RawRecord):
    """All of an event that the log keeps: what an archive needs to bring it back.

    Attributes:
        headers: its header lines, each ending in CR LF, without the conditions of its append.
        stored_at_ns: when the server took it, in nanoseconds since 1970.
    """

    headers: bytes
    stored_at_ns: int


class VersionConflict(Conflict):
    """The aggregate has events that the decision did not know."""


class LogUnavailable(TryLater):
    """The log certainly did not take the events: no server, no stream, no answer to a read."""


class LogFull(TryLater):
    """The stream is at its limit and discards new events: raise the limit or free the disk."""


class AppendOutcomeUnknown(TryLater):
    """No answer came: the events may be in the log. The same append again is safe."""


class EventTooLarge(Refused):
    """An event is over the server's size limit; nothing was written."""


class AppendTooLong(Refused):
    """More events than can be appended all or none; nothing was written."""


class AppendRefused(Refused):
    """The server refuses the events for a reason that repeating does not change."""


class CorruptRecord(Refused):
    """An event in the log cannot be decoded. The message names its position and subject."""

    def __init__(self, position: int, subject: str, why: object) -> None:
        super().__init__(f"position {position}, {subject}: {why}")
        self.position = position


class LogMismatch(VelroError):
    """The stream is not the one that is expected: other settings, or positions out of range."""


class EventLog(Protocol):
    """One totally ordered log of all aggregates."""

    async def append(
        self,
        family: Family,
        generation_id: str,
        events: Sequence[Envelope],
        *,
        expected: ExpectedVersion | None,
    ) -> Appended:
        """Append events to one aggregate, all or none. `expected` None: whatever is there.

        Events are known by their ids. Where the log has every one of them already, whatever was
        expected, the answer is a duplicate and not a conflict: a repeat after an unknown outcome
        learns that the first try got through. Without an expected version that holds only inside
        the server's duplicate window.

        Raises:
            ValueError: no events, or events of another aggregate: a mistake of the caller.
            VersionConflict: load again and decide again.
            LogUnavailable: nothing was written.
            LogFull: nothing was written.
            LogMismatch: the subject belongs to another stream, or batches are turned off.
            AppendOutcomeUnknown: perhaps written; repeating is safe.
            EventTooLarge: nothing was written.
            AppendTooLong: over `MAX_BATCH_EVENTS`; nothing was written.
            AppendRefused: nothing was written.
        """
        ...

    def append_all(self, additions: AsyncIterable[Addition]) -> AsyncGenerator[Added, None]:
        """Append to many aggregates, for bulk import: each addition all or none.

        Repeating the same additions writes nothing twice, so an import that was cut off is
        started again from anywhere before the cut. Additions that meet a conflict are reported
        and left out, the others are written. Close the generator (`contextlib.aclosing`).

        Raises:
            The same as `append`, but VersionConflict, for the additions of one step.
        """
        ...

    async def load(
        self, family: Family, generation_id: str, *, until: int | None = None
    ) -> History:
        """All events of one aggregate; an empty history where there are none.

        With `until` those up to this position, whatever is wrong with later ones; the version is
        none to append against then.

        Raises:
            LogUnavailable: no answer.
            CorruptRecord: an event cannot be decoded.
        """
        ...

    def read(
        self, *, after: int, until: int | None = None
    ) -> AsyncGenerator[Sequence[RawRecord], None]:
        """Records after a position, in order, in batches; for ever, or up to `until` inclusive.

        Batches are full (2,000 records) while there is more to read, and what is there at the
        log's end, no more often than every 4 ms for a quick reader, and every 20 ms for one that
        takes longer. No record is left out: survives restarts of the server by going on where it
        was, and raises where it cannot. Close the generator (`contextlib.aclosing`), so that the
        server's side goes too.

        Raises:
            LogUnavailable: the stream is gone, or no answer for longer than the patience.
            LogMismatch: the log ends before `after`, begins after it, or was made anew meanwhile.
        """
        ...

    async def last_position(self) -> int:
        """The position of the newest record; 0 in an empty log.

        Raises:
            LogUnavailable: no answer.
        """
        ...
