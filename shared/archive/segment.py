"""One segment as bytes: a line that names the format, a line of JSON, then the records.

Each record is five numbers, little-endian (position and time of storing as 8 bytes, the lengths of
subject, headers and body as 2, 4 and 4), and those three after them. All of it is compressed with
zstd. Its hash is that of the bytes before compression, so that another version of zstd, or another
level, makes the same segment.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from shared.archive.errors import ArchiveDamaged
from shared.contracts.facts import Fact, Sha256
from shared.event_log.port import RawRecord, WholeRecord

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAGIC: Final = b"velro log segment 1\n"
NO_SEGMENT: Final = "0" * 64
"""What the first segment names as the one before it."""

_FRAME: Final = struct.Struct("<QQHII")
# 1.1 GB/s to read at any level; 3 packs events to an eighth of their size at 300 MB/s.
_LEVEL: Final = 3


class SegmentHead(Fact):
    """What a segment says of itself.

    Attributes:
        first, last: the positions that it holds, all of them.
        previous: the hash of the segment before.
    """

    first: int
    last: int
    previous: Sha256


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment, packed.

    Attributes:
        content_sha256: of the bytes before compression: the segment's hash.
        content_bytes: how many those are.
        last_record_sha256: tells the last record from any other.
    """

    head: SegmentHead
    content_sha256: str
    content_bytes: int
    last_record_sha256: str
    packed: bytes


def record_bytes(record: WholeRecord) -> int:
    """How much room a record takes in a segment, before compression."""
    return _FRAME.size + len(record.subject) + len(record.headers) + len(record.data)


def record_sha256(record: WholeRecord) -> str:
    """Tells an event from any other at its place. When the server stored it does not count.

    Bringing an event back into a server stores it again, at another time.
    """
    named = (str(record.position).encode(), record.subject.encode(), record.headers, record.data)
    return sha256(b"\n".join(named)).hexdigest()


def pack(records: Sequence[WholeRecord], *, previous: str) -> Segment:
    """Make a segment of records that follow each other."""
    head = SegmentHead(first=records[0].position, last=records[-1].position, previous=previous)
    pieces = [MAGIC, head.model_dump_json().encode(), b"\n"]
    for record in records:
        subject = record.subject.encode()
        frame = _FRAME.pack(
            record.position,
            record.stored_at_ns,
            len(subject),
            len(record.headers),
            len(record.data),
        )
        pieces += (frame, subject, record.headers, record.data)
    content = b"".join(pieces)
    return Segment(
        head=head,
        content_sha256=sha256(content).hexdigest(),
        content_bytes=len(content),
        last_record_sha256=record_sha256(records[-1]),
        packed=zstd.compress(content, level=_LEVEL),
    )


def unpack(packed: bytes, *, content_sha256: str, max_bytes: int) -> tuple[SegmentHead, bytes]:
    """The head and the content of a segment that is the one it should be.

    Raises:
        ArchiveDamaged: it is not.
    """
    content = _unpacked(packed, max_bytes)
    found = sha256(content).hexdigest()
    if found != content_sha256:
        raise ArchiveDamaged(f"a segment's hash is {found}, and should be {content_sha256}")
    return _head(content), content


def opened(
    packed: bytes, *, previous: str, max_bytes: int
) -> tuple[Segment, Sequence[WholeRecord]]:
    """A segment of which nothing is known but which one it follows, and what is in it.

    Raises:
        ArchiveDamaged: it is no segment, or follows another one.
    """
    content = _unpacked(packed, max_bytes)
    head = _head(content)
    if head.previous != previous:
        raise ArchiveDamaged("a segment does not follow from the one before")
    try:
        records = list(whole_records(content))
    except (struct.error, ValueError) as error:
        raise ArchiveDamaged(f"a segment's events cannot be read: {error}") from error
    if [record.position for record in records] != list(range(head.first, head.last + 1)):
        raise ArchiveDamaged(f"a segment should hold {head.first} to {head.last}, and does not")
    segment = Segment(
        head=head,
        content_sha256=sha256(content).hexdigest(),
        content_bytes=len(content),
        last_record_sha256=record_sha256(records[-1]),
        packed=packed,
    )
    return segment, records


def _unpacked(packed: bytes, max_bytes: int) -> bytes:
    try:
        return zstd.ZstdDecompressor().decompress(packed, max_length=max_bytes + 1)
    except zstd.ZstdError as error:
        raise ArchiveDamaged(f"a segment cannot be unpacked: {error}") from error


def _head(content: bytes) -> SegmentHead:
    if not content.startswith(MAGIC):
        raise ArchiveDamaged("a segment is of a format that this version does not read")
    line = content[len(MAGIC) : content.find(b"\n", len(MAGIC))]
    try:
        return SegmentHead.model_validate_json(line)
    except ValidationError as error:
        raise ArchiveDamaged(f"a segment's head cannot be read: {error}") from error


def raw_records(content: bytes) -> Iterable[RawRecord]:
    """The records of a segment's content, as a log gives them."""
    for position, _, subject, start, body, end in _frames(content):
        yield RawRecord(position, subject, content[start + body : end])


def whole_records(content: bytes) -> Iterable[WholeRecord]:
    """The records of a segment's content, with all that is kept of each."""
    for position, stored_at_ns, subject, start, body, end in _frames(content):
        headers = content[start : start + body]
        yield WholeRecord(position, subject, content[start + body : end], headers, stored_at_ns)


def _frames(content: bytes) -> Iterable[tuple[int, int, str, int, int, int]]:
    """Position, time, subject, where the headers begin, how long they are, where the body ends."""
    at = content.index(b"\n", len(MAGIC)) + 1
    size, unpack_from = _FRAME.size, _FRAME.unpack_from
    while at < len(content):
        position, stored_at_ns, subject_bytes, header_bytes, body_bytes = unpack_from(content, at)
        at += size
        start = at + subject_bytes
        end = start + header_bytes + body_bytes
        yield position, stored_at_ns, content[at:start].decode(), start, header_bytes, end
        at = end
