from __future__ import annotations

import contextlib
import io
import json
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shared.contracts.reasons import ReasonCode
from shared.media.pictures import Dimensions, dimensions
from shared.media.sniff import (
    GIF,
    HEAD_BYTES,
    JPEG,
    JSON,
    PNG,
    WEBP,
    MediaKind,
    MediaTypeRefused,
    confirm,
    sniff,
)

if TYPE_CHECKING:
    from pathlib import Path


def image(name: str, size: tuple[int, int] = (7, 5)) -> bytes:
    into = io.BytesIO()
    Image.new("RGB", size, "red").save(into, name)
    return into.getvalue()


def film(brand: bytes, *others: bytes) -> bytes:
    brands = b"".join((brand, b"\0\0\0\0", *others))
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + b"\0\0\0\x08free" + bytes(64)


def ebml(doctype: bytes) -> bytes:
    element = b"\x42\x82" + bytes((0x80 | len(doctype),)) + doctype
    head = b"\x42\x86\x81\x01\x42\xf7\x81\x01" + element
    return b"\x1a\x45\xdf\xa3" + bytes((0x80 | len(head),)) + head + bytes(64)


def zipped() -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as archive:
        archive.writestr("a.png", image("PNG"))
    return into.getvalue()


SAMPLES = [
    (image("PNG"), "image/png", "png"),
    (image("JPEG"), "image/jpeg", "jpg"),
    (image("WEBP"), "image/webp", "webp"),
    (image("GIF"), "image/gif", "gif"),
    (image("AVIF"), "image/avif", "avif"),
    (film(b"isom", b"iso2", b"avc1", b"mp41"), "video/mp4", "mp4"),
    (film(b"mp42"), "video/mp4", "mp4"),
    (film(b"xxxx", b"isom"), "video/mp4", "mp4"),
    (film(b"M4V "), "video/mp4", "mp4"),
    (film(b"qt  "), "video/quicktime", "mov"),
    (b"\0\0\0\x08wide\0\0\x10\0mdat" + bytes(64), "video/quicktime", "mov"),
    (film(b"M4A ", b"mp42"), "audio/mp4", "m4a"),
    (film(b"avif", b"mif1"), "image/avif", "avif"),
    (ebml(b"webm"), "video/webm", "webm"),
    (b"ID3\x04\0\0\0\0\0\x0a" + bytes(64), "audio/mpeg", "mp3"),
    (b"\xff\xfb\x90\x64" + bytes(413), "audio/mpeg", "mp3"),
    (b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0" + bytes(64), "audio/wav", "wav"),
    (b"fLaC\0\0\0\x22" + bytes(64), "audio/flac", "flac"),
    (b"OggS\0\x02" + bytes(64), "audio/ogg", "ogg"),
    (b"glTF\x02\0\0\0\x14\0\0\0" + bytes(64), "model/gltf-binary", "glb"),
]
LIES = [
    None,
    "",
    "video/mp4",
    "text/html",
    "image/svg+xml",
    "application/json",
    "application/octet-stream",
    "nonsense",
]
REFUSED = [
    (b"", "empty"),
    (b"<!DOCTYPE html><html>", "HTML"),
    (b"\xef\xbb\xbf  \r\n<html>", "HTML"),
    (b"<script>alert(1)</script>", "HTML"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    (b"<?xml version='1.0'?><!-- a --><SVG onload='x'>", "SVG"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "markup"),
    (zipped(), "50 4b"),
    (b"%PDF-1.7\n", "25 50"),
    (b"\x7fELF" + bytes(64), "7f 45"),
    (b"MZ" + bytes(64), "4d 5a"),
    (b"\x1f\x8b\x08" + bytes(64), "1f 8b"),
    (b'{"detail": "not found"}', "7b 22"),
    (b"RIFF\x24\0\0\0AVI LIST" + bytes(64), "52 49"),
    (b"RIFF", "52 49"),
    (ebml(b"matroska"), "1a 45"),
    (film(b"heic", b"mif1", b"isom"), "00 00"),
    (film(b"crx "), "00 00"),
    (b"BM" + bytes(64), "42 4d"),
    (b"II*\0" + bytes(64), "49 49"),
    (b"\x89PNG", "89 50"),
    (b"GIF88a" + bytes(64), "47 49"),
    (b"ID3\x09\0\0\xff\xff\xff\xff", "49 44"),
    (b"\xff\xff\xff\xff" + bytes(64), "ff ff"),
    (b"glTF\x01\0\0\0" + bytes(64), "67 6c"),
    (b"fLaCky", "66 4c"),
    (b"\0" * 5000, "00 00"),
]


@pytest.mark.parametrize(("sample", "media_type", "extension"), SAMPLES)
@pytest.mark.parametrize("announced", LIES)
def test_a_file_is_what_its_bytes_are_whatever_it_was_called(
    sample: bytes, media_type: str, extension: str, announced: str | None
) -> None:
    kind = sniff(sample[:HEAD_BYTES], announced=announced)
    assert (kind.media_type, kind.extension) == (media_type, extension)
    assert kind.family == media_type.partition("/")[0]


@pytest.mark.parametrize(("sample", "word"), REFUSED)
@pytest.mark.parametrize("announced", ["image/png", "video/mp4", None])
def test_what_is_no_media_is_refused_by_what_it_is(
    sample: bytes, word: str, announced: str | None
) -> None:
    with pytest.raises(MediaTypeRefused, match=word) as refused:
        sniff(sample[:HEAD_BYTES], announced=announced)
    assert refused.value.reason is ReasonCode.MEDIA_TYPE_REFUSED
    assert refused.value.quarantine


@pytest.mark.parametrize("announced", ["application/json", "Application/JSON; charset=utf-8"])
@pytest.mark.parametrize("text", ['{"a": 1}', " [1, 2]", "\n{}"])
def test_json_is_known_where_it_was_announced(tmp_path: Path, text: str, announced: str) -> None:
    path = tmp_path / "a"
    path.write_text(text)
    kind = sniff(text.encode(), announced=announced)
    assert kind is JSON
    confirm(path, kind)


@pytest.mark.parametrize("announced", [None, "text/plain", "image/png", "application/jsonp"])
def test_json_is_not_known_where_it_was_not(announced: str | None) -> None:
    with pytest.raises(MediaTypeRefused):
        sniff(b'{"a": 1}', announced=announced)


@pytest.mark.parametrize("text", ["<html>", "callback({})", "'a'", "alert(1)", ""])
def test_announced_json_that_does_not_begin_so_is_refused(text: str) -> None:
    with pytest.raises(MediaTypeRefused):
        sniff(text.encode(), announced="application/json")


@pytest.mark.parametrize("text", ['{"a": 1', "{]", "{}<script>", "[" * 200_000])
def test_announced_json_that_is_none_to_its_end_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a"
    path.write_text(text)
    with pytest.raises(MediaTypeRefused, match="announced as JSON"):
        confirm(path, sniff(text.encode()[:HEAD_BYTES], announced="application/json"))


@given(st.binary(max_size=200))
def test_any_bytes_are_known_or_refused(head: bytes) -> None:
    for sample in (head, b"RIFF" + head, b"\0\0\0\x20ftyp" + head, b"\x1a\x45\xdf\xa3" + head):
        with contextlib.suppress(MediaTypeRefused):
            assert sniff(sample, announced="application/json").extension


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "GIF", "AVIF"])
def test_an_image_tells_its_size(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(image(name, (31, 17)))
    kind = sniff(path.read_bytes(), announced=None)
    assert dimensions(path, kind) == Dimensions(31, 17)


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [100_000, 2_000_000_000, 0])
def test_a_bomb_has_no_size_and_does_no_harm(tmp_path: Path, side: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(png_claiming(side, side))
    assert dimensions(path, PNG) is None


@pytest.mark.parametrize("kind", [PNG, JPEG, GIF, WEBP])
@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "GIF", "AVIF"])
def test_damaged_and_mislabelled_images_have_no_size(
    tmp_path: Path, name: str, kind: MediaKind
) -> None:
    path = tmp_path / "a"
    whole = image(name)
    for broken in (whole[:12], b"", bytes(100), whole[::-1]):
        path.write_bytes(broken)
        assert dimensions(path, kind) is None


def test_what_is_no_image_has_no_size(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text(json.dumps({"width": 5}))
    assert dimensions(path, JSON) is None
