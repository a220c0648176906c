"""What a file is, told by its bytes alone, and whether it may be stored.

A list of what is allowed, so anything unknown is refused; a general sniffer answers another
question, what a file might be, as a list with probabilities.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shared.contracts.reasons import ReasonCode
from shared.media.copying import CopyFailed

if TYPE_CHECKING:
    from pathlib import Path

    from shared.object_store.port import Held

# Enough for every signature below.
HEAD_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class MediaKind:
    """A type that may be stored, and the extension of its objects' keys."""

    media_type: str
    extension: str

    @property
    def family(self) -> str:
        """What the type is a kind of: image, video, audio, model, application."""
        return self.media_type.partition("/")[0]


class MediaTypeRefused(CopyFailed):
    """The bytes are of no type that is stored as media: a person should look at them."""

    def __init__(self, detail: str, *, media_type: str) -> None:
        super().__init__(ReasonCode.MEDIA_TYPE_REFUSED, detail, media_type=media_type)


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
# What a person released although it is none of these: never said to be what it looks like.
OPAQUE = MediaKind("application/octet-stream", "bin")

# https://mimesniff.spec.whatwg.org and the formats' own specifications
_PREFIXES: Final = (
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"\xff\xd8\xff", JPEG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"fLaC\x00", FLAC),
    (b"fLaC\x80", FLAC),
    (b"OggS\x00", OGG),
    (b"glTF\x02\x00\x00\x00", GLB),
)
# The brand after `ftyp` in ISO base media files (ISO/IEC 14496-12): https://mp4ra.org
_BRANDS: Final = {
    b"avif": AVIF,
    b"avis": AVIF,
    b"qt  ": MOV,
    b"M4A ": M4A,
    b"isom": MP4,
    b"iso2": MP4,
    b"iso3": MP4,
    b"iso4": MP4,
    b"iso5": MP4,
    b"iso6": MP4,
    b"iso7": MP4,
    b"iso8": MP4,
    b"iso9": MP4,
    b"mp41": MP4,
    b"mp42": MP4,
    b"avc1": MP4,
    b"dash": MP4,
    b"cmfc": MP4,
    b"M4V ": MP4,
    b"MSNV": MP4,
}
# Photographs in HEVC name brands of films beside their own.
_HEIC: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
# QuickTime from before brands begins with one of these atoms.
_QUICKTIME_ATOMS: Final = frozenset({b"moov", b"mdat", b"wide"})
_EBML: Final = b"\x1a\x45\xdf\xa3"
# The element DocType (RFC 8794) with a length of four: Matroska's says "matroska".
_WEBM_DOCTYPE: Final = b"\x42\x82\x84webm"


def sniff(head: bytes, *, announced: str | None) -> MediaKind:
    """What a file is, by its first `HEAD_BYTES`, or by all of it where it is shorter.

    Args:
        head: the bytes.
        announced: the type that the provider's answer named. It decides nothing but whether
            JSON, which has no signature, is what was to be expected.

    Raises:
        MediaTypeRefused: it is nothing that is stored.
    """
    kind = _by_signature(head)
    if kind is not None:
        return kind
    expected = (announced or "").partition(";")[0].strip().lower()
    if expected == JSON.media_type and head.lstrip()[:1] in {b"{", b"["}:
        return JSON
    looks_like, media_type = _described(head)
    raise MediaTypeRefused(f"{looks_like}; it is not stored as media", media_type=media_type)


def confirm(path: Path | Held, kind: MediaKind) -> None:
    """See that a whole file is what it began as, where a beginning does not tell.

    Reads all of a JSON file, whose size is bounded by then.

    Raises:
        MediaTypeRefused: it is not.
    """
    if kind is not JSON:
        return
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise MediaTypeRefused(
            "announced as JSON, and it is none", media_type="text/plain"
        ) from error


def _by_signature(head: bytes) -> MediaKind | None:
    for prefix, kind in _PREFIXES:
        if head.startswith(prefix):
            return kind
    if head[:4] == b"RIFF":
        return {b"WEBP": WEBP, b"WAVE": WAV}.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _by_brand(head)
    if head[4:8] in _QUICKTIME_ATOMS:
        return MOV
    if head.startswith(_EBML):
        return WEBM if _WEBM_DOCTYPE in head[:64] else None
    return MP3 if _is_mp3(head) else None


def _by_brand(head: bytes) -> MediaKind | None:
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, size, 4))]
    if brands[0] in _HEIC:
        return None
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)


def _is_mp3(head: bytes) -> bool:
    if head.startswith((b"ID3\x02", b"ID3\x03", b"ID3\x04")):
        return all(byte < 0x80 for byte in head[6:10])  # noqa: PLR2004 - a size in bytes of seven bits
    if len(head) < 4:  # noqa: PLR2004 - a frame header is four bytes
        return False
    # An MPEG audio frame: 11 bits of sync, layer III, a bit rate and a sampling rate that exist.
    sync = head[0] == 0xFF and head[1] & 0xE6 == 0xE2  # noqa: PLR2004 - bits of that header
    return sync and head[2] & 0xF0 not in {0x00, 0xF0} and head[2] & 0x0C != 0x0C  # noqa: PLR2004 - the same


def _described(head: bytes) -> tuple[str, str]:
    """What bytes that are refused look like, as a sentence and as a type."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1024].lower()
    if not head:
        return "the file is empty", OPAQUE.media_type
    if b"<svg" in start:
        return "the bytes are an SVG drawing, which can carry scripts", "image/svg+xml"
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")):
        return "the bytes are an HTML page", "text/html"
    if start.startswith(b"<"):
        return "the bytes are a page or a document in markup", "application/xml"
    start_of_it = head[:12].hex(" ")
    return (
        f"the bytes begin with {start_of_it}, which is no type that is known here",
        OPAQUE.media_type,
    )
