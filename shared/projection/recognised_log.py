"""The log for whoever acts on it: not while it is another one than the tables were made from."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from shared.event_log.port import LogUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence

    from shared.contracts.envelope import Envelope
    from shared.contracts.facts import Family
    from shared.event_log.port import (
        Added,
        Addition,
        Appended,
        EventLog,
        ExpectedVersion,
        History,
        RawRecord,
    )


class RecognisedLog:
    """`EventLog` whose events are neither decided on nor added to while it is another log.

    What is added to a log that was rolled back or made anew is in the way of the right one when
    that is brought back, and what is decided on it is decided without what is missing from it.
    """

    def __init__(self, log: EventLog, other_log: Callable[[], Awaitable[str | None]]) -> None:
        """Args: the log, and who says why it is another one (`Projector.other_log`)."""
        self._log = log
        self._other_log = other_log

    async def append(
        self,
        family: Family,
        generation_id: str,
        events: Sequence[Envelope],
        *,
        expected: ExpectedVersion | None,
    ) -> Appended:
        """See `EventLog.append`."""
        await self._recognised()
        return await self._log.append(family, generation_id, events, expected=expected)

    async def append_all(self, additions: AsyncIterable[Addition]) -> AsyncGenerator[Added, None]:
        """See `EventLog.append_all`."""
        await self._recognised()
        async with aclosing(self._log.append_all(additions)) as source:
            async for added in source:
                yield added

    async def load(
        self, family: Family, generation_id: str, *, until: int | None = None
    ) -> History:
        """See `EventLog.load`."""
        await self._recognised()
        return await self._log.load(family, generation_id, until=until)

    def read(
        self, *, after: int, until: int | None = None
    ) -> AsyncGenerator[Sequence[RawRecord], None]:
        """See `EventLog.read`."""
        return self._log.read(after=after, until=until)

    async def last_position(self) -> int:
        """See `EventLog.last_position`."""
        return await self._log.last_position()

    async def _recognised(self) -> None:
        other = await self._other_log()
        if other is not None:
            raise LogUnavailable(f"nothing is done on this log until a person has looked: {other}")
