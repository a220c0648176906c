"""The log in memory, for tests of what stands on it. One suite holds it to the real one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shared.contracts.codec import Codec, Undecodable, encode
from shared.contracts.envelope import Recorded
from shared.contracts.subjects import Subjects
from shared.event_log.addressing import check_addressed
from shared.event_log.port import (
    MAX_BATCH_EVENTS,
    NOTHING_YET,
    Added,
    Appended,
    AppendTooLong,
    CorruptRecord,
    EventTooLarge,
    ExpectedVersion,
    History,
    LogMismatch,
    RawRecord,
    VersionConflict,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Sequence

    from shared.contracts.envelope import Envelope
    from shared.contracts.facts import Family
    from shared.event_log.port import Addition


class MemoryLog:
    """`EventLog` that holds everything in one list. It remembers ids of events for ever."""

    def __init__(
        self,
        subjects: Subjects | None = None,
        *,
        codec: Codec | None = None,
        max_event_bytes: int = 1024 * 1024,
        batch: int = 2000,
    ) -> None:
        self._subjects = subjects or Subjects()
        self._codec = codec or Codec()
        self._max_event_bytes = max_event_bytes
        self._batch = batch
        self._records: list[RawRecord] = []
        self._by_subject: dict[str, list[RawRecord]] = {}
        self._positions: dict[str, int] = {}
        self._grown = asyncio.Condition()

    async def append(
        self,
        family: Family,
        generation_id: str,
        events: Sequence[Envelope],
        *,
        expected: ExpectedVersion | None,
    ) -> Appended:
        """See `EventLog.append`."""
        check_addressed(family, generation_id, events)
        if len(events) > MAX_BATCH_EVENTS:
            raise AppendTooLong(
                f"{len(events)} events cannot be appended at once; at most {MAX_BATCH_EVENTS} can"
            )
        subject = self._subjects.of(family, generation_id)
        bodies = [encode(event) for event in events]
        for event, body in zip(events, bodies, strict=True):
            if len(body) > self._max_event_bytes:
                raise EventTooLarge(f"event {event.id} is {len(body)} bytes")
        async with self._grown:
            there = [self._positions[event.id] for event in events if event.id in self._positions]
            if len(there) == len(events):
                return Appended(there[-1], duplicate=True)
            if there or expected not in (None, self._version(subject)):
                raise VersionConflict(f"{subject} has events that were not expected")
            for event, body in zip(events, bodies, strict=True):
                self.put(subject, body)
                self._positions[event.id] = len(self._records)
            self._grown.notify_all()
            return Appended(len(self._records))

    async def append_all(self, additions: AsyncIterable[Addition]) -> AsyncGenerator[Added, None]:
        """See `EventLog.append_all`."""
        async for addition in additions:
            count = len(addition.events)
            try:
                appended = await self.append(
                    addition.family,
                    addition.generation_id,
                    addition.events,
                    expected=addition.expected,
                )
            except VersionConflict:
                yield Added(1, 0, 0, 0, (addition,))
            else:
                yield (
                    Added(1, 0, 0, count)
                    if appended.duplicate
                    else Added(1, appended.position, count, 0)
                )

    async def load(
        self, family: Family, generation_id: str, *, until: int | None = None
    ) -> History:
        """See `EventLog.load`."""
        subject = self._subjects.of(family, generation_id)
        events: list[Recorded] = []
        for record in self._by_subject.get(subject, []):
            if until is not None and record.position > until:
                break
            try:
                events.append(Recorded(record.position, self._codec.decode(record.data)))
            except Undecodable as error:
                raise CorruptRecord(record.position, subject, error) from error
        return History(tuple(events), self._version(subject))

    async def read(
        self, *, after: int, until: int | None = None
    ) -> AsyncGenerator[Sequence[RawRecord], None]:
        """See `EventLog.read`."""
        if after > len(self._records):
            raise LogMismatch(f"the log ends at position {len(self._records)}, before {after}")
        position = after
        while until is None or position < until:
            async with self._grown:
                while len(self._records) <= position:
                    await self._grown.wait()
                end = min(position + self._batch, until or len(self._records))
                batch = self._records[position:end]
            position = batch[-1].position
            yield batch

    async def last_position(self) -> int:
        """See `EventLog.last_position`."""
        return len(self._records)

    def put(self, subject: str, data: bytes) -> None:
        """Place bytes in the log as another writer could have, decodable or not."""
        record = RawRecord(len(self._records) + 1, subject, data)
        self._records.append(record)
        self._by_subject.setdefault(subject, []).append(record)

    def _version(self, subject: str) -> ExpectedVersion:
        records = self._by_subject.get(subject)
        return ExpectedVersion(records[-1].position) if records else NOTHING_YET
