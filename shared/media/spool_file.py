"""A file in the spool while it is written: by a thread, a few pieces behind what comes."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

# That wait, or are being written; one more is being filled. With one, a download took a sixth more.
_PIECES_BEHIND: Final = 3


class SpoolFile:
    """A file that pieces are appended to.

    The thread goes from one to the next without the loop between: to wait for that could take as
    long as it takes to write.

    Args:
        path: of the file.
        anew: begin it, whatever lies there; else go on with what does.
    """

    def __init__(self, path: Path, *, anew: bool) -> None:
        self._open = partial(path.open, "wb" if anew else "ab", buffering=0)
        self._file: FileIO | None = None
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytearray, int]] = deque()
        self._spare: list[bytearray] = []
        self._one_less = asyncio.Event()
        self._thread: asyncio.Future[None] | None = None

    async def append(self, piece: bytearray, size: int) -> bytearray:
        """Write the first `size` bytes of a piece before long; another one, to be filled meanwhile.

        Raises:
            OSError: this or an earlier piece was not written.
        """
        self._waiting.append((piece, size))
        self._write_on()
        while len(self._waiting) > _PIECES_BEHIND:
            self._one_less.clear()
            await self._one_less.wait()
            self._write_on()
        return self._spare.pop() if self._spare else bytearray(len(piece))

    async def close(self) -> None:
        """Write what waits. Cancelled or not, no thread writes to the file afterwards.

        Raises:
            OSError: not all was written.
        """
        try:
            self._write_on()
            while self._thread is not None:
                await self._thread_ended()
                self._write_on()
        finally:
            await self._thread_ended()
            if self._file is not None:
                self._file.close()

    async def _thread_ended(self) -> None:
        if self._thread is not None:
            await asyncio.wait((self._thread,))

    def _write_on(self) -> None:
        """See that a thread is at it as long as something waits; raises what one failed with."""
        if self._thread is not None and self._thread.done():
            self._thread.result()
            self._thread = None
        if self._thread is None and self._waiting:
            self._thread = asyncio.ensure_future(asyncio.to_thread(self._write))
            self._thread.add_done_callback(lambda _: self._one_less.set())

    def _write(self) -> None:
        """Write what waits, and what comes to wait meanwhile: for a thread."""
        if self._file is None:
            self._file = self._open()
        while self._waiting:
            piece, size = self._waiting[0]
            with memoryview(piece)[:size] as held:
                written = 0
                while written < size:
                    written += self._file.write(held[written:])
            self._spare.append(piece)
            self._waiting.popleft()
            self._loop.call_soon_threadsafe(self._one_less.set)
