"""Reading ahead: the next batch is read and decoded while the current one is written.

Not at the log's end, where a batch that is taken early holds little, and what comes after it waits
for two transactions instead of one.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from shared.event_log.port import RawRecord
    from shared.projection.batch import Batch


class Readable(Protocol):
    """What is read of `shared.event_log.port.EventLog`."""

    def read(
        self, *, after: int, until: int | None = None
    ) -> AsyncGenerator[Sequence[RawRecord], None]:
        """Records after a position, in order, in batches; for ever, or up to `until` inclusive."""
        ...


class Batching(Protocol):
    """What is wanted of `shared.projection.batch.Decoding`."""

    async def batch(self, records: Sequence[RawRecord]) -> Batch:
        """Decode and group."""
        ...


# A batch of so many events took longer to decode than a small transaction takes.
_WORTH_IT: Final = 500


class ReadAhead:
    """One batch in flight, never more."""

    def __init__(
        self, source: AsyncGenerator[Sequence[RawRecord], None], decoding: Batching
    ) -> None:
        self._source = source
        self._decoding = decoding
        self._coming: asyncio.Task[Batch | None] | None = None

    async def next(self, interrupted: asyncio.Future[None]) -> Batch | None:
        """The next batch; None after the last one, or as soon as `interrupted` is done.

        Raises:
            LogUnavailable: the log could not be read.
            LogMismatch: it is not the log that was being read.
        """
        if self._coming is None:
            self._coming = asyncio.create_task(self._read())
        await asyncio.wait((self._coming, interrupted), return_when=asyncio.FIRST_COMPLETED)
        if interrupted.done():
            return None
        batch, self._coming = self._coming.result(), None
        if batch is not None and len(batch.records) >= _WORTH_IT:
            self._coming = asyncio.create_task(self._read())
        return batch

    async def close(self) -> None:
        """Give up the batch in flight."""
        if self._coming is None:
            return
        self._coming.cancel()
        # Whatever it was about to report, nobody asks any more.
        with suppress(asyncio.CancelledError, Exception):
            await self._coming

    async def _read(self) -> Batch | None:
        records = await anext(self._source, None)
        return None if records is None else await self._decoding.batch(records)


@asynccontextmanager
async def reading_ahead(
    log: Readable, decoding: Batching, *, after: int, until: int | None = None
) -> AsyncGenerator[ReadAhead]:
    """Read the log from a position on, for ever or up to `until` inclusive."""
    async with aclosing(log.read(after=after, until=until)) as source:
        ahead = ReadAhead(source, decoding)
        try:
            yield ahead
        finally:
            await ahead.close()
