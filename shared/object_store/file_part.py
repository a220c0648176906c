"""Parts of a file as bodies of requests, read as they are sent."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

import aiohttp

from shared.object_store.checksums import hasher

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp.abc import AbstractStreamWriter

    from shared.object_store.capabilities import BodyCheck

_READ_BYTES: Final = 1024 * 1024


class FilePart(aiohttp.Payload):
    """A body of `size_bytes` from `offset` on; it has no more memory than one read.

    It may be sent again: each sending opens the file and reads from the part's beginning.
    """

    # It holds nothing that has to be closed.
    _autoclose = True

    def __init__(self, path: Path, *, offset: int, size_bytes: int) -> None:
        super().__init__(path)
        self._path = path
        self._offset = offset
        self._size = size_bytes

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Never: it is bytes."""
        raise TypeError(f"a part of a file is no text ({encoding}, {errors})")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send all of it."""
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        """Send so much of it, or all."""
        size = self._size or 0
        left = size if content_length is None else min(size, content_length)
        at = self._offset
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            while left > 0:
                piece = await asyncio.to_thread(os.pread, descriptor, min(_READ_BYTES, left), at)
                if not piece:
                    raise OSError(f"{self._path.name} ends {left:,} bytes too soon")
                at += len(piece)
                left -= len(piece)
                await writer.write(piece)
        finally:
            os.close(descriptor)

    def digest(self, check: BodyCheck) -> bytes:
        """What the service is to compare to the part. Reads all of it: for a thread."""
        digest = hasher(check)
        left = self._size or 0
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._offset)
            while left > 0 and (chunk := file.read(min(_READ_BYTES, left))):
                digest.update(chunk)
                left -= len(chunk)
        return digest.digest()
