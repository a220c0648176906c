"""The bucket as a port."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol

from shared.errors import TryLater

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from shared.contracts.facts import StoredObject
    from shared.contracts.reasons import ReasonCode


class StoreFailed(TryLater):
    """The bucket did not take or give an object.

    Attributes:
        reason: what alerts and the retry policy read.
        detail: a sentence for a person; what the person can do is in the message alone.
    """

    def __init__(self, reason: ReasonCode, detail: str, *, advice: str = "") -> None:
        super().__init__(f"{reason}: {detail}" + (f": {advice}" if advice else ""))
        self.reason = reason
        self.detail = detail


class BucketRefused(StoreFailed):
    """The service answers: there is no such bucket, or not for our keys."""


@dataclass(frozen=True, slots=True)
class Held:
    """A small file that never was on disk; opened and read as a path is."""

    content: bytes | memoryview = field(repr=False)

    def open(self, mode: Literal["rb"]) -> BinaryIO:
        """From its beginning."""
        del mode
        return BytesIO(self.content)

    def read_bytes(self) -> bytes:
        """All of it."""
        return bytes(self.content)


@dataclass(frozen=True, slots=True)
class PutOrder:
    """A file to store, and all that is known of it.

    Attributes:
        crc32s: of each `uploads.PART_BYTES` of it, where they were computed when the bytes came:
            then what the disk did to them since is found out as what the way to the bucket did.
        spent: nobody needs the file afterwards, whatever comes of the put, which may cut it off.
    """

    key: str
    path: Path | Held
    size_bytes: int
    sha256: str
    media_type: str
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    crc32s: tuple[int, ...] = ()
    spent: bool = False


class Put(Enum):
    """What a put came to: in either case the object is there as it should be."""

    STORED = "stored"
    ALREADY_THERE = "already there"


@dataclass(frozen=True, slots=True)
class Head:
    """What the bucket says of an object. `sha256` is what we wrote beside it."""

    key: str
    size_bytes: int
    media_type: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Listed:
    """What a bucket's list says of an object."""

    key: str
    size_bytes: int
    modified_at: datetime


class ObjectStore(Protocol):
    """One bucket. Every verb has a deadline."""

    @property
    def bucket(self) -> str:
        """Its name."""
        ...

    async def put(self, order: PutOrder) -> Put:
        """Store a file and see that it is there as it should be. A repeat changes nothing.

        Raises:
            StoreFailed: it is not stored, or not as it should be.
        """
        ...

    async def head(self, key: str) -> Head | None:
        """What is known of an object; None where there is none.

        Raises:
            StoreFailed: the bucket gave no answer.
        """
        ...

    def read(self, key: str) -> AsyncIterator[bytes]:
        """An object's bytes, piece by piece.

        Raises:
            StoreFailed: the bucket gave no answer, or not all of it.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove an object; no error where there is none.

        Raises:
            StoreFailed: the bucket gave no answer.
        """
        ...

    def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """The keys under a prefix, in order.

        Raises:
            StoreFailed: the bucket gave no answer.
        """
        ...

    def pages(self, prefix: str = "") -> AsyncGenerator[list[Listed], None]:
        """All objects under a prefix, some hundreds at a time, in the service's own order.

        Raises:
            StoreFailed: the bucket gave no answer.
        """
        ...

    async def sweep_stale_uploads(self, *, begun_before: datetime) -> int:
        """End uploads of ours that nobody completed; how many there were.

        Raises:
            StoreFailed: the bucket gave no answer.
        """
        ...

    async def url(self, stored: StoredObject) -> str:
        """An address to read the object from, public or signed for a while, as settings say."""
        ...
