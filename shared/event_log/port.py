"""The log as a port. JetStream is one implementation, memory the other; one suite holds both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType, Protocol

from shared.errors import Conflict, Refused, TryLater, VelroError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from shared.contracts.envelope import Envelope, Recorded
    from shared.contracts.events import Family

ExpectedVersion = NewType("ExpectedVersion", int)
"""The position of the aggregate's last event that a decision was made on."""

NOTHING_YET = ExpectedVersion(0)
"""The decision was made on an aggregate without events."""


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
class RawRecord:
    """An event as bytes, for readers that decode many or keep what cannot be decoded."""

    position: int
    subject: str
    data: bytes


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


class CorruptRecord(Refused):
    """An event in the log cannot be decoded. The message names its position and subject."""


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

        Raises:
            VersionConflict: load again and decide again.
            LogUnavailable: nothing was written.
            LogFull: nothing was written.
            AppendOutcomeUnknown: perhaps written; repeating is safe.
            EventTooLarge: nothing was written.
        """
        ...

    async def load(self, family: Family, generation_id: str) -> History:
        """All events of one aggregate; an empty history where there are none.

        Raises:
            LogUnavailable: no answer.
            CorruptRecord: an event cannot be decoded.
        """
        ...

    def read(self, *, after: int, until: int | None = None) -> AsyncIterator[Sequence[RawRecord]]:
        """Records after a position, in order, in batches; for ever, or up to `until` inclusive.

        A batch is what is there: up to 2,000 records, or fewer after 20 ms of waiting for more.
        Survives restarts of the server by going on where it was.

        Raises:
            LogUnavailable: the stream is gone, or no answer for longer than the deadline.
        """
        ...

    async def last_position(self) -> int:
        """The position of the newest record; 0 in an empty log.

        Raises:
            LogUnavailable: no answer.
        """
        ...
