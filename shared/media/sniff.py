"""What a file is, told by its bytes alone, and whether it may be stored.

A list of what is allowed, so anything unknown is refused; a general sniffer answers the other
question, what a file might be, with a probability.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from PIL import Image, UnidentifiedImageError

from shared.contracts.reasons import ReasonCode
from shared.media.copying import CopyFailed

if TYPE_CHECKING:
    from pathlib import Path

HEAD_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class MediaKind:
    """A type that may be stored, and the extension of its objects' keys."""

    media_type: str
    extension: str


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Of an image, in pixels."""

    width: int
    height: int


class MediaTypeRefused(CopyFailed):
    """The bytes are of no type that is stored as media: a person should look at them."""

    def __init__(self, detail: str) -> None:
        super().__init__(ReasonCode.MEDIA_TYPE_REFUSED, detail)


PNG = MediaKind("image/png", "png")
JPEG = MediaKind("image/jpeg", "jpg")
WEBP = MediaKind("image/webp", "webp")
AVIF = MediaKind("image/avif", "avif")
GIF = MediaKind("image/gif", "gif")
MP4 = MediaKind("video/mp4", "mp4")
MOV = MediaKind("video/quicktime", "mov")
WEBM = MediaKind("video/webm", "webm")
MP3 = MediaKind("audio/mpeg", "mp3")
WAV = MediaKind("audio/wav", "wav")
FLAC = MediaKind("audio/flac", "flac")
OGG = MediaKind("audio/ogg", "ogg")
M4A = MediaKind("audio/mp4", "m4a")
GLB = MediaKind("model/gltf-binary", "glb")
JSON = MediaKind("application/json", "json")

# https://mimesniff.spec.whatwg.org and the formats' own specifications
_PREFIXES: Final = (
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"\xff\xd8\xff", JPEG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"fLaC", FLAC),
    (b"OggS\x00", OGG),
    (b"glTF\x02\x00\x00\x00", GLB),
    (b"ID3", MP3),
)
# The brand after `ftyp` in ISO base media files (ISO/IEC 14496-12): https://mp4ra.org
_BRANDS: Final = {
    b"avif": AVIF,
    b"avis": AVIF,
    b"qt  ": MOV,
    b"M4A ": M4A,
    b"isom": MP4,
    b"iso2": MP4,
    b"iso4": MP4,
    b"iso5": MP4,
    b"iso6": MP4,
    b"iso8": MP4,
    b"mp41": MP4,
    b"mp42": MP4,
    b"avc1": MP4,
    b"dash": MP4,
    b"M4V ": MP4,
    b"MSNV": MP4,
}
_EBML: Final = b"\x1a\x45\xdf\xa3"
_PILLOW_FORMATS: Final = {PNG: "PNG", JPEG: "JPEG", WEBP: "WEBP", GIF: "GIF", AVIF: "AVIF"}


def sniff(path: Path, *, announced: str | None) -> MediaKind:
    """What the file is.

    Args:
        path: the whole file.
        announced: the type that the provider's answer named. It decides nothing but whether
            JSON, which has no signature, is what was to be expected.

    Raises:
        MediaTypeRefused: it is nothing that is stored.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    kind = _by_signature(head)
    if kind is not None:
        return kind
    if announced is not None and announced.partition(";")[0].strip() == JSON.media_type:
        return _checked_json(path)
    raise MediaTypeRefused(f"{_described(head)}; it is not stored as media")


def dimensions(path: Path, kind: MediaKind) -> Dimensions | None:
    """Width and height of an image, from its header; None for anything else, or damaged ones.

    No pixel is decoded, and Pillow reads no format but the one that was found.
    """
    if (name := _PILLOW_FORMATS.get(kind)) is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=[name]) as image:
                return Dimensions(image.width, image.height)
    except (
        UnidentifiedImageError,
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ):
        # The bytes are the provider's, and are kept as they came; only their size is not known.
        return None


def _by_signature(head: bytes) -> MediaKind | None:
    for prefix, kind in _PREFIXES:
        if head.startswith(prefix):
            return kind
    if head[:4] == b"RIFF":
        return {b"WEBP": WEBP, b"WAVE": WAV}.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _by_brand(head)
    if head.startswith(_EBML):
        return WEBM if b"webm" in head[:64] else None
    # An MPEG audio frame: 11 bits of sync, then layer III and a bit rate that exists.
    if (
        len(head) > 3  # noqa: PLR2004 - a frame header is four bytes
        and head[0] == 0xFF  # noqa: PLR2004 - sync
        and head[1] & 0xE6 == 0xE2  # noqa: PLR2004 - sync, layer III
        and head[2] & 0xF0 not in {0x00, 0xF0}
    ):
        return MP3
    return None


def _by_brand(head: bytes) -> MediaKind | None:
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, size, 4))]
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)


def _checked_json(path: Path) -> MediaKind:
    try:
        json.loads(path.read_bytes())
    except ValueError as error:
        raise MediaTypeRefused("announced as JSON, and it is none") from error
    return JSON


def _described(head: bytes) -> str:
    start = head.lstrip()[:512].lower()
    if not head:
        return "the file is empty"
    if start.startswith((b"<!doctype html", b"<html")):
        return "the bytes are an HTML page"
    if b"<svg" in start:
        return "the bytes are an SVG drawing, which can carry scripts"
    return f"the bytes begin with {head[:12].hex(' ')}, which is no type that is known here"
