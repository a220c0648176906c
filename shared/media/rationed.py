"""A file that gives only so much: what reads headers ends, whatever the bytes tell it to do."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# What honest headers need is far below: a film of an hour has a few thousand boxes and some 100 KiB
# of tables that are read, and a cover picture of a few MiB may stand before the sound.
_MAX_READS: Final = 20_000
_MAX_BYTES: Final = 16 * 1024 * 1024


class TooMuchReading(OSError):
    """A file asks its reader for more than any honest file does."""


class Rationed(io.RawIOBase):
    """A file that can be read for a while: so a parser ends, whatever the bytes tell it to do."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._reads = _MAX_READS
        self._bytes = _MAX_BYTES

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Bytes from the beginning. Asked in loops, so it counts as reading."""
        self._take(0)
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """To a place; counts as reading."""
        self._take(0)
        return self._file.seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        """At most what is left of the ration; never all that a header claims there is."""
        wanted = self._bytes + 1 if size is None or size < 0 else min(size, self._bytes + 1)
        data = self._file.read(wanted)
        self._take(len(data))
        return data

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """As `read`."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _take(self, size_bytes: int) -> None:
        self._reads -= 1
        self._bytes -= size_bytes
        if self._reads < 0 or self._bytes < 0:
            raise TooMuchReading
