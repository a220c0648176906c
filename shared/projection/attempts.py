"""Finding the event over which processes die: attempts are counted where a death leaves them.

Nothing is written beside a batch while all is well. A session says once that it has begun, and at
its end that it ended. Where another process finds one that never did, and events behind the
checkpoint that it may have had in hand, these are tried one at a time, each counted before it is
touched. An event that was tried often enough is not tried again: it is parked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from shared.projection.kept import KEPT, deadly_reason

if TYPE_CHECKING:
    from uuid import UUID

    from asyncpg import Connection, Record

    from shared.event_log.port import RawRecord
    from shared.projection.batch import Batch, Decoding

_log = structlog.get_logger(__name__)

# As many as the log hands out at once, and so the most that a process had in hand when it died.
_IN_HAND: Final = 2000


class Attempts:
    """The attempts of one session, over the connection that holds the projector's lock."""

    def __init__(
        self, connection: Connection[Record], read_model: str, *, process: UUID, most: int
    ) -> None:
        """Count for one read model.

        Args:
            connection: in no transaction, so that what is counted is there at once.
            read_model: its name.
            process: tells this process from any other.
            most: how often an event is tried alone before it is parked.
        """
        self._connection = connection
        self._read_model = read_model
        self._process = process
        self._most = most

    async def begin(self, position: int, log_end: int) -> int:
        """Say that a session begins at the checkpoint's position.

        Returns:
            Up to which position events are to be tried one at a time; `position` for none.
        """
        died = await KEPT.value(
            self._connection,
            "begin_session",
            read_model=self._read_model,
            process=self._process,
        )
        # Attempts that were survived, by a process that died before it could say so.
        await self.survived(position)
        until = min(log_end, position + _IN_HAND)
        if not died or until <= position:
            return position
        _log.warning(
            "projector_died",
            read_model=self._read_model,
            position=position,
            tried_one_at_a_time_until=until,
        )
        return until

    async def batch(self, record: RawRecord, decoding: Decoding) -> Batch:
        """A batch of this one event, counted; one that was tried often enough is not decoded."""
        attempt = await KEPT.value(
            self._connection,
            "count_attempt",
            read_model=self._read_model,
            position=record.position,
        )
        if attempt <= self._most:
            return await decoding.batch([record])
        await KEPT.run(
            self._connection, "call_deadly", read_model=self._read_model, position=record.position
        )
        return decoding.undecoded(record, deadly_reason(attempt - 1))

    async def survived(self, position: int) -> None:
        """Say that all events up to a position have their effect, or are parked."""
        await KEPT.run(self._connection, "survived", read_model=self._read_model, position=position)

    async def end(self) -> None:
        """Say that the session ended, as it should."""
        await KEPT.run(
            self._connection, "end_session", read_model=self._read_model, process=self._process
        )
