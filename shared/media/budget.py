"""So many bytes, shared by all who need some."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Self


class OthersGrow(Exception):
    """Somebody waits for more already: two who do would wait for each other's bytes."""


class ByteBudget:
    """Bytes given out in the order in which they are asked for.

    So a large wish is not overtaken for ever by small ones. A wish beyond all of it gets all of it.
    Only who has a share that grows goes first: what is freed meanwhile lets it end.

    Args:
        max_bytes: how many may be taken at once.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._free = max_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._growing: tuple[int, asyncio.Future[None]] | None = None

    @property
    def free_bytes(self) -> int:
        """How many nobody has."""
        return self._free

    async def take(self, size_bytes: int) -> Share:
        """Take that many, waiting until they are free; they are given back where the share ends."""
        size_bytes = min(size_bytes, self._max)
        await self._take(size_bytes)
        return Share(self, size_bytes)

    async def more(self, had_bytes: int, wanted_bytes: int) -> int:
        """Let a share grow, waiting until it can; how large it is then.

        Raises:
            OthersGrow: another share waits to grow. Whoever gets this has to give up its own, so
                that there is always one that can end.
        """
        size_bytes = min(wanted_bytes, self._max) - had_bytes
        if size_bytes <= 0:
            return had_bytes
        if self._growing is not None:
            raise OthersGrow
        if self._free >= size_bytes:
            self._free -= size_bytes
            return had_bytes + size_bytes
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._growing = (size_bytes, granted)
        await self._granted(size_bytes, granted)
        return had_bytes + size_bytes

    async def _take(self, size_bytes: int) -> None:
        if not self._waiting and self._growing is None and self._free >= size_bytes:
            self._free -= size_bytes
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size_bytes, granted))
        await self._granted(size_bytes, granted)

    async def _granted(self, size_bytes: int, granted: asyncio.Future[None]) -> None:
        try:
            await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._grant()  # who stood behind us need not wait for us any more
            else:
                self.give_back(size_bytes)  # granted in the moment in which we were cancelled
            raise

    def give_back(self, size_bytes: int) -> None:
        """Let others have that many."""
        self._free += size_bytes
        self._grant()

    def _grant(self) -> None:
        if self._growing is not None:
            if not self._settled(*self._growing):
                return
            self._growing = None
        while self._waiting and self._settled(*self._waiting[0]):
            self._waiting.popleft()

    def _settled(self, size_bytes: int, granted: asyncio.Future[None]) -> bool:
        """Whether somebody need not wait any more: has what was wished, or was cancelled."""
        if granted.cancelled():
            return True
        if size_bytes > self._free:
            return False
        self._free -= size_bytes
        granted.set_result(None)
        return True


class Share:
    """Bytes of a budget that somebody has, as long as the block lasts."""

    def __init__(self, budget: ByteBudget, size_bytes: int) -> None:
        self._budget = budget
        self.size_bytes = size_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.give_back(self.size_bytes)

    async def grow(self, size_bytes: int) -> None:
        """Have that many in all, waiting until it can be; see `ByteBudget.more`."""
        self.size_bytes = await self._budget.more(self.size_bytes, size_bytes)
