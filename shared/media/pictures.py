"""Width and height of an image, from its header, without decoding a pixel."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from PIL.AvifImagePlugin import AvifImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from shared.media.sniff import AVIF, GIF, JPEG, PNG, WEBP, MediaKind

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.ImageFile import ImageFile

    from shared.object_store.port import Held

MIB: Final = 1024 * 1024
# Headers come first; profiles and thumbnails before the size are part of them.
_HEADER_BYTES: Final = 4 * MIB
_START_BYTES: Final = 4096
# Their decoders take whole files or nothing.
_WHOLE_BYTES: Final = 32 * MIB
# What claims to be larger is not believed: a square of this many is 31,000 pixels wide.
_MAX_PIXELS: Final = 1_000_000_000

# Pillow's readers themselves: opened so, no other format is tried, and no warning of the process
# has to be changed to hear of a size that is out of bounds.
_READERS: Final[dict[MediaKind, tuple[type[ImageFile], int]]] = {
    PNG: (PngImageFile, _HEADER_BYTES),
    JPEG: (JpegImageFile, _HEADER_BYTES),
    GIF: (GifImageFile, _HEADER_BYTES),
    WEBP: (WebPImageFile, _WHOLE_BYTES),
    AVIF: (AvifImageFile, _WHOLE_BYTES),
}


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Of an image, in pixels."""

    width: int
    height: int


def dimensions(path: Path | Held, kind: MediaKind) -> Dimensions | None:
    """Width and height; None for what is no image, or does not tell, or is not to be believed.

    The bytes are the provider's, and are kept as they came whatever this says. Reads at most
    32 MiB: to be called in a thread, by few at a time.
    """
    if (reader := _READERS.get(kind)) is None:
        return None
    image_file, max_bytes = reader
    with path.open("rb") as file:
        return _believed(image_file, file.read(max_bytes))


def dimensions_at_start(held: Held, kind: MediaKind) -> Dimensions | None:
    """As `dimensions`, where the first 4 KiB tell and no decoder of whole files is needed.

    Reads so little that it need not be handed to a thread, which takes ten times as long.
    """
    image_file, max_bytes = _READERS.get(kind, (None, 0))
    if image_file is None or max_bytes != _HEADER_BYTES:
        return None
    return _believed(image_file, bytes(held.content[:_START_BYTES]))


def _believed(image_file: type[ImageFile], content: bytes) -> Dimensions | None:
    start = io.BytesIO(content)
    try:
        with image_file(start) as image:
            width, height = image.size
    except Exception:  # noqa: BLE001 - a parser over hostile bytes raises what it likes
        return None
    if not 0 < width * height <= _MAX_PIXELS:
        return None
    return Dimensions(width, height)
