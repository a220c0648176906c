"""What a picture's beginning tells is what all of it tells, or nothing."""

from __future__ import annotations

import io

import pytest
from PIL import Image, PngImagePlugin

from shared.media.pictures import Dimensions, dimensions, dimensions_at_start
from shared.media.sniff import AVIF, GIF, JPEG, JSON, MP4, PNG, WEBP, MediaKind
from shared.object_store.port import Held


def picture(name: str, size: tuple[int, int] = (64, 48), comment: str = "") -> Held:
    file = io.BytesIO()
    said = PngImagePlugin.PngInfo()
    said.add_text("prompt", comment)
    more = {"pnginfo": said} if name == "PNG" else {}
    Image.effect_noise(size, 50).save(file, name, **more)
    return Held(file.getvalue())


@pytest.mark.parametrize(("name", "kind"), [("PNG", PNG), ("JPEG", JPEG), ("GIF", GIF)])
def test_a_beginning_tells_the_size(name: str, kind: MediaKind) -> None:
    held = picture(name, (640, 480))
    assert len(held.content) > 4096
    assert dimensions_at_start(held, kind) == dimensions(held, kind) == Dimensions(640, 480)


@pytest.mark.parametrize(("name", "kind"), [("WEBP", WEBP), ("AVIF", AVIF)])
def test_what_only_a_decoder_of_whole_files_reads_is_left_to_a_thread(
    name: str, kind: MediaKind
) -> None:
    held = picture(name)
    assert dimensions_at_start(held, kind) is None
    assert dimensions(held, kind) == Dimensions(64, 48)


def test_a_size_behind_much_text_is_left_to_a_thread() -> None:
    held = picture("PNG", comment="a prompt " * 1000)
    assert dimensions_at_start(held, PNG) is None
    assert dimensions(held, PNG) == Dimensions(64, 48)


@pytest.mark.parametrize("kind", [PNG, JPEG, GIF, MP4, JSON])
@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", bytes(10_000)])
def test_what_is_no_picture_has_no_size(kind: MediaKind, content: bytes) -> None:
    assert dimensions_at_start(Held(content), kind) is None


def test_a_picture_larger_than_any_is_not_believed() -> None:
    one = picture("PNG").read_bytes()
    held = Held(one[:16] + (50_000).to_bytes(4, "big") * 2 + one[24:])
    assert dimensions_at_start(held, PNG) is None
    assert dimensions(held, PNG) is None
