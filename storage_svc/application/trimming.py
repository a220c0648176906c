"""Letting the events of settled generations leave the stream, once the archive has them.

The stream loses its beginning and nothing else: positions stay what they are, and what is left has
no holes. So the first generation that is not settled keeps everything behind its first event.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from shared.archive.departing import Departing
from shared.archive.errors import ArchiveDamaged
from shared.archive.restoring import compare
from shared.errors import VelroError, in_words
from shared.event_log.port import CorruptRecord, LogMismatch
from storage_svc.domain.settled import unsettled_because

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from datetime import datetime, timedelta

    from shared.archive.archive import Archive
    from shared.archive.archived_log import WholeLog
    from shared.archive.departing import Departed
    from shared.archive.trimmed import TrimmedIndex
    from shared.contracts.subjects import Subjects
    from shared.event_log.jetstream_trim import TrimmableStream
    from shared.event_log.port import EventLog

_log = structlog.get_logger(__name__)

_LOOK_EVERY_S: Final = 3600.0
# What is decided on at once; the ids and positions of so many are in memory.
_MOST_EVENTS: Final = 100_000
_LOADS_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Cut:
    """A beginning of the stream that may leave.

    Attributes:
        first, last: its positions; none where `last` comes before `first`.
        departing: where the events are, of each generation that has some there.
        generations: how many of these begin there; of the others some left before.
        stays: why it ends there; None where only so much was looked at.
    """

    first: int
    last: int
    departing: Mapping[str, Departed]
    generations: int
    stays: str | None

    @property
    def events(self) -> int:
        """How many leave."""
        return max(self.last - self.first + 1, 0)


@dataclass(slots=True)
class Trimmer:
    """Decides what may leave one stream, and lets it go. Any number may try at once.

    Attributes:
        log: the stream.
        whole: the same, and before it what has left already.
        after: for how long a generation must be settled.
        looked: told up to which position it has been looked.
    """

    log: WholeLog
    whole: EventLog
    archive: Archive
    index: TrimmedIndex
    stream: TrimmableStream
    subjects: Subjects
    after: timedelta
    clock: Callable[[], datetime]
    looked: Callable[[int], None] = lambda _: None
    _told: str | None = field(default=None, init=False)

    async def cuts(self) -> AsyncGenerator[Cut, None]:
        """What may leave now, a part at a time; the last one says why what follows stays.

        Nothing is changed: whoever wants it carries each one out.

        Raises:
            LogUnavailable, LogMismatch: the log cannot be read.
            StoreFailed, ArchiveDamaged: the archive cannot.
        """
        first = await self.log.first_position()
        while True:
            try:
                cut = await self._next(first)
            except LogMismatch:
                # Another one may have let it go while this one was reading.
                if (left := await self.log.first_position()) <= first:
                    raise
                first = left
                continue
            yield cut
            if cut.stays is not None:
                return
            first = cut.last + 1

    async def carry_out(self, cut: Cut) -> None:
        """Let it leave: compared with the archive, written down and read again, then taken away.

        Cut off anywhere, the same again does the rest.

        Raises:
            ArchiveForked: the archive has other events; nothing was taken away.
            LogMismatch: the index, or the stream, is not what it should be then.
            TrimmingElsewhere: another process does the same.
            LogUnavailable, LogFull, AppendOutcomeUnknown, StoreFailed, ArchiveDamaged: again later.
        """
        try:
            async with aclosing(compare(self.log, self.archive, until=cut.last)) as compared:
                async for _ in compared:
                    pass
        except ArchiveDamaged as error:
            told = f"{error}; nothing leaves until it is mended: velro archive verify says how"
            raise ArchiveDamaged(told) from error
        await self.index.add(cut.departing, through=cut.last)
        await self.index.see_that_it_has(cut.departing)
        await self.stream.purge_until(cut.last)
        # Another one may have got further meanwhile.
        if (first := await self.log.first_position()) <= cut.last:
            raise LogMismatch(f"the stream still begins at {first}, not behind {cut.last}")

    async def run(self) -> None:
        """Let go what may, about every hour, whatever happens, until cancelled."""
        while True:
            try:
                async with aclosing(self.cuts()) as cuts:
                    async for cut in cuts:
                        if cut.events:
                            await self.carry_out(cut)
                            _log.info(
                                "trimmed",
                                first=cut.first,
                                last=cut.last,
                                generations=cut.generations,
                            )
                        self._tell(cut.stays)
            except VelroError as error:
                self._tell(in_words(error))
            await asyncio.sleep(_LOOK_EVERY_S * random.uniform(0.5, 1.5))  # noqa: S311 - no secret

    async def _next(self, first: int) -> Cut:
        end, stays = await self._end()
        last = min(end, first + _MOST_EVENTS - 1)
        if last < end:
            stays = None
        collected = Departing(self.subjects)
        if last >= first:
            async with aclosing(self.log.read(after=first - 1, until=last)) as source:
                async for records in source:
                    new = collected.add(records)
                    blocking = await self._first_that_stays(list(new))
                    if blocking is not None:
                        generation_id, why = blocking
                        last = new[generation_id] - 1
                        stays = f"generation {generation_id} begins there: {why}"
                        break
                    self.looked(records[-1].position)
        departing = collected.until(last)
        before = await self.index.of_each(list(departing)) if departing else {}
        return Cut(first, last, departing, len(departing) - len(before), stays)

    async def _end(self) -> tuple[int, str | None]:
        """Up to where it may go at most, whatever is settled, and why not further."""
        head = await self.archive.head()
        if head is None:
            return 0, "nothing is archived yet"
        # The archive's last event stays: by it the two are known to belong together.
        end, why = head.last - 1, f"the archive ends at position {head.last}"
        behind = await self.stream.furthest_behind()
        if behind is not None and behind.position < end:
            end = behind.position
            why = f"consumer {behind.consumer} has acknowledged nothing behind position {end}"
        return end, why

    async def _first_that_stays(self, generation_ids: Sequence[str]) -> tuple[str, str] | None:
        for begin in range(0, len(generation_ids), _LOADS_AT_ONCE):
            some = generation_ids[begin : begin + _LOADS_AT_ONCE]
            reasons = await asyncio.gather(*(self._stays_because(one) for one in some))
            for generation_id, why in zip(some, reasons, strict=True):
                if why is not None:
                    return generation_id, why
        return None

    async def _stays_because(self, generation_id: str) -> str | None:
        try:
            generation = await self.whole.load("generation", generation_id)
            storage = await self.whole.load("storage", generation_id)
        except CorruptRecord as error:
            return f"an event cannot be read: {error}"
        both = (*generation.events, *storage.events)
        events = [one.envelope for one in sorted(both, key=lambda one: one.position)]
        if (why := unsettled_because(events)) is not None:
            return why
        newest = max(event.time for event in events)
        if newest > self.clock() - self.after:
            return f"it is settled since {newest:%Y-%m-%d %H:%M} UTC, not for {self.after} yet"
        return None

    def _tell(self, stays: str | None) -> None:
        if stays is not None and stays != self._told:
            _log.info("not_trimmed_further", reason=stays)
        self._told = stays
