"""Parts of a file as bodies of requests, read as they are sent; and the file that they leave."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Final

from shared.object_store.checksums import hasher

if TYPE_CHECKING:
    from pathlib import Path

    from shared.http11.connection import Connection
    from shared.object_store.capabilities import BodyCheck

_READ_BYTES: Final = 1024 * 1024
# Linux: what is not in memory is refused, and not waited for.
_IF_IN_MEMORY: Final = getattr(os, "RWF_NOWAIT", None)


class FilePart:
    """A body of `size_bytes` from `offset` on; it has no more memory than one read.

    It may be sent again: each sending opens the file and reads from the part's beginning.
    """

    def __init__(self, path: Path, *, offset: int, size_bytes: int) -> None:
        self._path = path
        self._offset = offset
        self._size = size_bytes

    @property
    def size_bytes(self) -> int:
        """How much it is."""
        return self._size

    async def send(self, head: bytes, connection: Connection) -> None:
        """See `Body.send`."""
        at, end = self._offset, self._offset + self._size
        piece = memoryview(bytearray(min(_READ_BYTES, self._size)))
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            while at < end:
                read = await _read_into(descriptor, piece[: end - at], at)
                if not read:
                    raise OSError(f"{self._path.name} ends {end - at:,} bytes too soon")
                await connection.send(*((head,) if head else ()), piece[:read])
                if connection.has_early or connection.has_ended:
                    return
                head = b""
                at += read
        finally:
            os.close(descriptor)

    def digest(self, check: BodyCheck) -> bytes:
        """What the service is to compare to the part. Reads all of it: for a thread."""
        digest = hasher(check)
        left = self._size
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._offset)
            while left > 0 and (chunk := file.read(min(_READ_BYTES, left))):
                digest.update(chunk)
                left -= len(chunk)
        return digest.digest()


class SpentFile:
    """A file that nobody needs, so that what was sent of it is cut off: its end first.

    What is cut off before it came to the disk need not be written there, and its memory is free for
    whoever stores the same bytes on this machine.

    Args:
        path: of the file.
        parts: how many it has; the first is number 1.
        part_bytes: of each but the last.
    """

    def __init__(self, path: Path, *, parts: int, part_bytes: int) -> None:
        self._path = path
        self._left = parts
        self._part_bytes = part_bytes
        self._sent: set[int] = set()
        # Two at once, and the later one might make it longer again.
        self._cutting = asyncio.Lock()

    async def sent(self, number: int) -> None:
        """A part is where it should be: cut it off, once all behind it are."""
        self._sent.add(number)
        async with self._cutting:
            left = self._left
            while left in self._sent:
                left -= 1
            if left == self._left:
                return
            self._left = left
            # Where it cannot be cut, it lasts until it is removed.
            with contextlib.suppress(OSError):
                await asyncio.to_thread(os.truncate, self._path, left * self._part_bytes)


async def _read_into(descriptor: int, piece: memoryview, at: int) -> int:
    """Read at once what the system has in memory, and in a thread what the disk must give."""
    if _IF_IN_MEMORY is not None:
        try:
            if read := os.preadv(descriptor, [piece], at, _IF_IN_MEMORY):
                return read
        except OSError:
            pass  # not in memory, or a file system that does not tell
    return await asyncio.to_thread(os.preadv, descriptor, [piece], at)
