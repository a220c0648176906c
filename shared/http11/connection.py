"""One connection: bytes in, read into the reader's own memory; bytes out, as fast as they go.

A general client makes an object of every piece that comes and hands it on through several queues,
which costs more than to move the bytes. What is read here is copied once, by the kernel.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from shared.errors import in_words
from shared.http11.errors import Cut, Silent

if TYPE_CHECKING:
    from collections.abc import Callable

# What comes while nobody reads: heads of answers, and small bodies.
_EARLY_BYTES: Final = 64 * 1024


class Connection(asyncio.BufferedProtocol):
    """A connection that one exchange at a time uses.

    Args:
        silence_s: how long nothing may come while something is awaited, or nothing may go.
        lost: called when the connection has ended.
    """

    def __init__(self, *, silence_s: float, lost: Callable[[Connection], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._silence_s = silence_s
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._early = bytearray(_EARLY_BYTES)
        self._from = self._to = 0
        self._target: memoryview | None = None
        self._came = 0
        self._paused = self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._why: Exception | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing can be sent or will come any more."""
        return self._ended or self._transport is None or self._transport.is_closing()

    @property
    def has_early(self) -> bool:
        """Whether something came that nobody has read."""
        return self._to > self._from

    async def send(self, *pieces: bytes | memoryview) -> None:
        """Send them, one after the other; their memory may be used again afterwards.

        Returns early where an answer begins to come: then the rest is not wanted, or not needed.

        Raises:
            Cut: the connection ended, or nothing went for too long.
        """
        if self.has_ended or self._transport is None:
            raise Cut("the connection is closed", unanswered=True)
        self._transport.writelines(pieces)
        while not self.has_ended and not self.has_early:
            if not self._transport.get_write_buffer_size():
                return
            await self._something()

    async def read_into(self, target: memoryview) -> int:
        """Wait for bytes, and how many came; 0 at the connection's end.

        Raises:
            Cut: the connection broke, or nothing came for too long.
        """
        while True:
            if self._to > self._from:
                return self._taken(target)
            if self._ended:
                if isinstance(self._why, Cut):
                    raise self._why
                if self._why is not None:
                    raise Cut(in_words(self._why)) from self._why
                return 0
            self._target, self._came = target, 0
            try:
                await self._something()
            finally:
                self._target = None
            if self._came:
                return self._came

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = cast("asyncio.Transport", transport)
        # "May go on writing" then means that nothing refers to what was written.
        self._transport.set_write_buffer_limits(high=0)

    def get_buffer(self, sizehint: int) -> memoryview:
        """See `asyncio.BufferedProtocol`."""
        del sizehint
        if self._target is not None and not self._came:
            return self._target
        return memoryview(self._early)[self._to :]

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        if self._target is not None and not self._came:
            self._came = nbytes
        else:
            self._to += nbytes
            if self._to == len(self._early) and self._transport is not None:
                self._transport.pause_reading()
                self._paused = True
        self._wake()

    def eof_received(self) -> bool:
        """See `asyncio.BufferedProtocol`."""
        self._ended = True
        self._wake()
        return False

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        self._ended = True
        self._why = self._why or exc
        self._wake()
        self._lost(self)

    def _taken(self, target: memoryview) -> int:
        size = min(len(target), self._to - self._from)
        target[:size] = memoryview(self._early)[self._from : self._from + size]
        self._from += size
        if self._from == self._to:
            self._from = self._to = 0
            if self._paused and self._transport is not None and not self.has_ended:
                self._transport.resume_reading()
                self._paused = False
        return size

    async def _something(self) -> None:
        """Wait until bytes came, went, or never will."""
        self._waiter = self._loop.create_future()
        silent = self._loop.call_later(self._silence_s, self._fell_silent)
        try:
            await self._waiter
        finally:
            silent.cancel()
            self._waiter = None

    def _fell_silent(self) -> None:
        self._why = Silent(f"nothing came for {self._silence_s:g} s")
        self._ended = True
        self.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
