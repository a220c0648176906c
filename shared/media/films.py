"""Width, height and duration of a film, from its header, without decoding a frame.

The libraries that tell these are decoders in native code, which is much to let loose on the bytes
of a stranger for three numbers. Both formats keep them in a handful of fixed fields: boxes in MP4
and MOV (ISO/IEC 14496-12: `mvhd`, `tkhd`, `hdlr`), elements in WebM (RFC 9559: Info, TrackEntry,
Video).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shared.media.durations import LONGEST_S
from shared.media.pictures import Dimensions
from shared.media.rationed import Rationed, TooMuchReading
from shared.media.sniff import MOV, MP4, WEBM, MediaKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shared.object_store.port import Held

# No display and no encoder of today goes beyond a quarter of it.
_MAX_SIDE: Final = 65_536
# The largest header field that is read whole; the rest of a box is passed over.
_FIELD_BYTES: Final = 128

_SEGMENT, _INFO, _SCALE, _DURATION = 0x18538067, 0x1549A966, 0x2AD7B1, 0x4489
_TRACKS, _TRACK, _VIDEO, _WIDTH, _HEIGHT = 0x1654AE6B, 0xAE, 0xE0, 0xB0, 0xBA
_CLUSTER: Final = 0x1F43B675
_NANOSECONDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Film:
    """What a film's header tells; None for what it does not, or what is not to be believed."""

    size: Dimensions | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """A box or an element: its name, and where its content begins and ends in the file."""

    name: bytes | int
    start: int
    end: int


def film(path: Path | Held, kind: MediaKind) -> Film:
    """What the header tells; an empty answer for what is no film.

    Reads at most 16 MiB in at most 20,000 steps, whatever the bytes say: to be called in a thread,
    by few at a time.
    """
    if (reader := _READERS.get(kind)) is None:
        return Film()
    with path.open("rb") as file:
        end = file.seek(0, 2)
        try:
            return _believed(reader(Rationed(file), _Part(b"", 0, end)))
        except (TooMuchReading, ValueError, struct.error, OverflowError, ZeroDivisionError):
            return Film()  # the bytes are kept as they came, whatever their header is worth


def _believed(told: Film) -> Film:
    size, seconds = told.size, told.duration_s
    if size is not None and not (0 < size.width <= _MAX_SIDE and 0 < size.height <= _MAX_SIDE):
        size = None
    if seconds is not None and not 0 < seconds <= LONGEST_S:
        seconds = None
    return Film(size, None if seconds is None else round(seconds, 3))


def _of_boxes(file: Rationed, whole: _Part) -> Film:
    moov = _first(_boxes(file, whole), b"moov")
    seconds: float | None = None
    size: Dimensions | None = None
    for part in _boxes(file, moov):
        if part.name == b"mvhd":
            seconds = _movie_seconds(_field(file, part))
        elif part.name == b"trak" and size is None:
            size = _track_size(file, part)
    return Film(size, seconds)


def _movie_seconds(field: bytes) -> float | None:
    layout, at, unknown = (">IQ", 20, 2**64 - 1) if field[0] == 1 else (">II", 12, 2**32 - 1)
    scale, ticks = struct.unpack_from(layout, field, at)
    return None if ticks == unknown else ticks / scale


def _track_size(file: Rationed, track: _Part) -> Dimensions | None:
    """Of a track of pictures, as it is to be shown: a phone films lying and says so in a matrix."""
    header = b""
    pictures = False
    for part in _boxes(file, track):
        if part.name == b"tkhd":
            header = _field(file, part)
        elif part.name == b"mdia":
            pictures = any(
                inside.name == b"hdlr" and _field(file, inside)[8:12] == b"vide"
                for inside in _boxes(file, part)
            )
    if not pictures or not header:
        return None
    matrix_at = 52 if header[0] == 1 else 40
    *matrix, width, height = struct.unpack_from(">9iII", header, matrix_at)
    width, height = width >> 16, height >> 16
    lying = matrix[0] == matrix[4] == 0 and matrix[1] != 0
    return Dimensions(height, width) if lying else Dimensions(width, height)


def _boxes(file: Rationed, within: _Part) -> Iterator[_Part]:
    at = within.start
    while at + 8 <= within.end:
        file.seek(at)
        length, name = struct.unpack(">I4s", file.read(8))
        start = at + 8
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8))
            start += 8
        end = within.end if length == 0 else at + length
        if end < start or end > within.end:
            raise ValueError("a box that reaches out of the one around it")
        yield _Part(name, start, end)
        at = end


def _of_elements(file: Rationed, whole: _Part) -> Film:
    segment = _first(_elements(file, whole), _SEGMENT)
    seconds: float | None = None
    size: Dimensions | None = None
    for part in _elements(file, segment):
        if part.name == _INFO:
            seconds = _info_seconds(file, part)
        elif part.name == _TRACKS:
            size = _first_size(file, part)
        elif part.name == _CLUSTER:
            break  # the pictures begin: what tells of them comes before
    return Film(size, seconds)


def _info_seconds(file: Rationed, info: _Part) -> float | None:
    scale, ticks = 1_000_000, None
    for part in _elements(file, info):
        if part.name == _SCALE:
            scale = int.from_bytes(_field(file, part))
        elif part.name == _DURATION:
            field = _field(file, part)
            (ticks,) = struct.unpack(">d" if len(field) == 8 else ">f", field)  # noqa: PLR2004 - the two widths of a float there
    return None if ticks is None else ticks * scale / _NANOSECONDS


def _first_size(file: Rationed, tracks: _Part) -> Dimensions | None:
    for track in _elements(file, tracks):
        if track.name != _TRACK:
            continue
        for video in _elements(file, track):
            if video.name == _VIDEO:
                sides = {
                    part.name: int.from_bytes(_field(file, part))
                    for part in _elements(file, video)
                    if part.name in {_WIDTH, _HEIGHT}
                }
                return Dimensions(sides.get(_WIDTH, 0), sides.get(_HEIGHT, 0))
    return None


def _elements(file: Rationed, within: _Part) -> Iterator[_Part]:
    at = within.start
    while at < within.end:
        file.seek(at)
        head = file.read(12)
        name_bytes = _width(head, 0)
        size_bytes = _width(head, name_bytes)
        name = int.from_bytes(head[:name_bytes])
        start = at + name_bytes + size_bytes
        mask = (1 << 7 * size_bytes) - 1
        length = int.from_bytes(head[name_bytes : name_bytes + size_bytes]) & mask
        # All ones: written while it was not known, so it reaches to the end.
        end = within.end if length == mask else start + length
        if end > within.end:
            raise ValueError("an element that reaches out of the one around it")
        yield _Part(name, start, end)
        at = end


def _width(head: bytes, at: int) -> int:
    """How many bytes a number takes: one more than the zero bits that it begins with."""
    if at >= len(head) or head[at] == 0:
        raise ValueError("no number that an element begins with")
    return 9 - head[at].bit_length()


def _first(parts: Iterator[_Part], name: bytes | int) -> _Part:
    for part in parts:
        if part.name == name:
            return part
    raise ValueError(f"there is no {name!r}")


def _field(file: Rationed, part: _Part) -> bytes:
    file.seek(part.start)
    field = file.read(min(part.end - part.start, _FIELD_BYTES))
    if not field:
        raise ValueError("an empty field")
    return field


_READERS: Final[dict[MediaKind, Callable[[Rationed, _Part], Film]]] = {
    MP4: _of_boxes,
    MOV: _of_boxes,
    WEBM: _of_elements,
}
