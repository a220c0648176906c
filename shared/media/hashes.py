"""What is computed of a file while it comes: the hash that names it, and a check of each part."""

from __future__ import annotations

import hashlib

from shared.object_store.checksums import crc32
from shared.object_store.uploads import PART_BYTES


class Hashes:
    """SHA-256 of all bytes; CRC-32 of each part that they would be sent in.

    Both are of what came, so they find out whatever happens to it later, on our own disk too.
    """

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._crc32s = [0]
        self._in_part = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take more bytes in."""
        self._sha256.update(data)
        left = memoryview(data)
        while left:
            if self._in_part == PART_BYTES:
                self._crc32s.append(0)
                self._in_part = 0
            piece = left[: PART_BYTES - self._in_part]
            self._crc32s[-1] = crc32(piece, self._crc32s[-1])
            self._in_part += len(piece)
            left = left[len(piece) :]

    def sha256(self) -> str:
        """Of all bytes so far, in hex."""
        return self._sha256.hexdigest()

    def crc32s(self) -> tuple[int, ...]:
        """Of each part so far, the last being what there is of it."""
        return tuple(self._crc32s)
