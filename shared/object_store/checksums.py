"""What is said of a body, in a header, for the service to compare."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Final, Literal, Protocol, cast

from isal import isal_zlib

from shared.object_store.capabilities import BodyCheck

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Of bytes that go on after those whose CRC is given. The library's stubs leave the bytes untyped.
crc32: Final = cast("Callable[[bytes | memoryview, int], int]", isal_zlib.crc32)

# By check: the header, and botocore's name for it.
HEADERS: Final = {
    BodyCheck.CRC32: "x-amz-checksum-crc32",
    BodyCheck.SHA256: "x-amz-checksum-sha256",
    BodyCheck.MD5: "Content-MD5",
}
PARAMETERS: Final = {
    BodyCheck.CRC32: "ChecksumCRC32",
    BodyCheck.SHA256: "ChecksumSHA256",
    BodyCheck.MD5: "ContentMD5",
}
# What an upload in parts is begun with, where the checksums of its parts are said again at its end.
ALGORITHMS: Final[dict[BodyCheck, Literal["CRC32", "SHA256"]]] = {
    BodyCheck.CRC32: "CRC32",
    BodyCheck.SHA256: "SHA256",
}


class Hasher(Protocol):
    """What hashlib's objects do."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take more bytes in."""
        ...

    def digest(self) -> bytes:
        """What all bytes so far come to."""
        ...


def hasher(check: BodyCheck) -> Hasher:
    """What computes a check; of NONE, a SHA-256: then only the signature holds the body's hash."""
    match check:
        case BodyCheck.CRC32:
            return _Crc32()
        case BodyCheck.MD5:
            return hashlib.md5(usedforsecurity=False)
        case BodyCheck.SHA256 | BodyCheck.NONE:
            return hashlib.sha256()


def digest_of(body: bytes | memoryview, check: BodyCheck) -> bytes:
    """What a check of these bytes is."""
    found = hasher(check)
    found.update(body)
    return found.digest()


def crc32_digest(value: int) -> bytes:
    """As it is sent."""
    return value.to_bytes(4, "big")


def crc32_of_parts(values: Sequence[int], *, part_bytes: int, size_bytes: int) -> int:
    """Of a file, by those of its parts, each of `part_bytes` and the last of what is left."""
    whole = values[0]
    for number, value in enumerate(values[1:], start=1):
        length = min(part_bytes, size_bytes - number * part_bytes)
        whole = isal_zlib.crc32_combine(whole, value, length)
    return whole


def as_header(digest: bytes) -> str:
    """As all of these headers want it."""
    return base64.b64encode(digest).decode()


class _Crc32:
    """CRC-32 as hashlib's objects are; a tenth of the time that SHA-256 takes."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = crc32(data, self._value)

    def digest(self) -> bytes:
        return crc32_digest(self._value)
