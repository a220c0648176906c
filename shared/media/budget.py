"""So many bytes, shared by all who need some."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class ByteBudget:
    """Bytes given out in the order in which they are asked for.

    So a large wish is not overtaken for ever by small ones. A wish beyond all of it gets all of it.

    Args:
        max_bytes: how many may be taken at once.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._free = max_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def free_bytes(self) -> int:
        """How many nobody has."""
        return self._free

    @contextlib.asynccontextmanager
    async def taken(self, size_bytes: int) -> AsyncGenerator[None]:
        """Take that many, waiting until they are free; given back at the end."""
        size_bytes = min(size_bytes, self._max)
        await self._take(size_bytes)
        try:
            yield
        finally:
            self._give_back(size_bytes)

    async def _take(self, size_bytes: int) -> None:
        if not self._waiting and self._free >= size_bytes:
            self._free -= size_bytes
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (size_bytes, granted)
        self._waiting.append(place)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._give_back(size_bytes)  # granted in the moment in which we were cancelled
            else:
                self._waiting.remove(place)
                self._grant()
            raise

    def _give_back(self, size_bytes: int) -> None:
        self._free += size_bytes
        self._grant()

    def _grant(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size_bytes, granted = self._waiting.popleft()
            self._free -= size_bytes
            granted.set_result(None)
