"""Parts of a file as bodies of requests, read as they are sent."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import IO, TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from pathlib import Path

    from _typeshed import WriteableBuffer

_READ_BYTES: Final = 256 * 1024


class FilePart(io.RawIOBase):
    """A seekable body of `size_bytes` from `offset` on; it has no more memory than one read.

    It has no `name`, from which the HTTP client would make a header of its own.
    """

    def __init__(self, path: Path, *, offset: int, size_bytes: int) -> None:
        super().__init__()
        self._file = path.open("rb", buffering=0)
        self._offset = offset
        self._size = size_bytes
        self._at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Bytes from the part's beginning."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """To a place within the part."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """As much as the part still has."""
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), max(0, self._size - self._at))
        self._file.seek(self._offset + self._at)
        got = self._file.readinto(view[:wanted])
        self._at += got
        return got

    def close(self) -> None:
        """Close the file underneath."""
        self._file.close()
        super().close()

    def as_body(self) -> IO[bytes]:
        """Itself, as the type that clients ask for: they need no more than this class has."""
        return cast("IO[bytes]", self)

    def md5(self) -> str:
        """The part's MD5 as `Content-MD5` wants it. Reads all of it: for a thread."""
        digest = hashlib.md5(usedforsecurity=False)
        self.seek(0)
        while chunk := self.read(_READ_BYTES):
            digest.update(chunk)
        self.seek(0)
        return base64.b64encode(digest.digest()).decode()
