"""How long sound lasts, told by small real files; files that are not what they say do no harm."""

from __future__ import annotations

import io
import random
import struct
import wave
from typing import TYPE_CHECKING

import pytest

from shared.media.durations import duration_s
from shared.media.sniff import FLAC, GLB, M4A, MP3, OGG, PNG, WAV, WEBM, MediaKind, sniff

if TYPE_CHECKING:
    from pathlib import Path

RATE = 8000


def a_wav(seconds: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(bytes(int(seconds * RATE) * 2))
    return file.getvalue()


def a_flac(seconds: float) -> bytes:
    """A stream info block and no frame: what a reader of headers reads."""
    packed = RATE << 44 | 0 << 41 | 15 << 36 | int(seconds * RATE)
    info = struct.pack(">HH6sQ", 4096, 4096, bytes(6), packed) + bytes(16)
    return b"fLaC" + b"\x80" + len(info).to_bytes(3, "big") + info


def an_mp3(seconds: float) -> bytes:
    """Silent frames of MPEG 1 layer III: 128 kbit/s, 44.1 kHz, 1,152 samples each."""
    frame = b"\xff\xfb\x90\x00" + bytes(413)
    return frame * round(seconds * 44100 / 1152)


def an_ogg(seconds: float) -> bytes:
    """Vorbis: the three headers of a stream, and a last page that says where it ends."""
    from mutagen.ogg import OggPage  # noqa: PLC0415 - it computes the pages' checksums

    identity = b"\x01vorbis" + struct.pack("<IBIiiiBB", 0, 1, RATE, 0, 64000, 0, 0xB8, 1)
    comments = b"\x03vorbis" + struct.pack("<I", 4) + b"test" + struct.pack("<I", 0) + b"\x01"
    pages: list[bytes] = []
    for number, packet in enumerate((identity, comments, b"\x05vorbis", b"\x00")):
        page = OggPage()
        page.packets = [packet]
        page.serial, page.sequence, page.first = 7, number, number == 0
        page.last = number == 3
        page.position = int(seconds * RATE) if page.last else 0
        pages.append(bytes(page.write()))
    return b"".join(pages)


def box(name: bytes, *inside: bytes) -> bytes:
    body = b"".join(inside)
    return (8 + len(body)).to_bytes(4, "big") + name + body


def an_mp4(seconds: float, brand: bytes = b"isom", handler: bytes = b"soun") -> bytes:
    times = struct.pack(">IIIIIHH", 0, 0, 0, 1000, int(seconds * 1000), 0, 0)
    track = box(
        b"trak",
        box(b"mdia", box(b"mdhd", times), box(b"hdlr", bytes(8) + handler + bytes(13))),
    )
    return box(b"ftyp", brand, bytes(4), brand) + box(b"mdat", bytes(100)) + box(b"moov", track)


SOUNDS = [
    (a_wav(1.5), WAV),
    (a_flac(1.5), FLAC),
    (an_mp3(1.5), MP3),
    (an_ogg(1.5), OGG),
    (an_mp4(1.5, b"M4A "), M4A),
]
NAMES = [kind.extension for _, kind in SOUNDS]


@pytest.mark.parametrize(("sound", "kind"), SOUNDS, ids=NAMES)
def test_a_file_tells_how_long_it_lasts(tmp_path: Path, sound: bytes, kind: MediaKind) -> None:
    path = tmp_path / "a"
    path.write_bytes(sound)
    assert sniff(sound[:4096], announced=None) == kind
    assert duration_s(path, kind) == pytest.approx(1.5, abs=0.03)


@pytest.mark.parametrize("kind", [PNG, GLB, WEBM])
def test_what_has_no_duration_or_does_not_tell_has_none(tmp_path: Path, kind: MediaKind) -> None:
    path = tmp_path / "a"
    path.write_bytes(a_wav(1.0))
    assert duration_s(path, kind) is None


def test_a_claim_that_is_beyond_belief_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(an_mp4(4_000_000, b"M4A "))
    assert duration_s(path, M4A) is None
    path.write_bytes(a_flac(0))
    assert duration_s(path, FLAC) is None


def nested(depth: int) -> bytes:
    """Boxes in boxes, each of which says that it reaches to the file's end."""
    return b"".join((8 * (depth - number)).to_bytes(4, "big") + b"moov" for number in range(depth))


def endless_id3() -> bytes:
    tag = b"ID3\x04\x00\x00" + b"\x00\x00\x00\x0a" + bytes(10)
    return tag * 100_000


HOSTILE = {
    "boxes without number": (box(b"ftyp", b"M4A ") + box(b"moov", box(b"free") * 500_000), M4A),
    "boxes in boxes": (box(b"ftyp", b"M4A ") + nested(100_000), M4A),
    "a box of all there could be": (box(b"ftyp", b"M4A ") + b"\0\0\0\x01moov" + b"\xff" * 8, M4A),
    "a picture as large as can be said": (b"fLaC\x06\xff\xff\xff" + bytes(20_000_000), FLAC),
    "blocks without number": (b"fLaC" + (b"\x01\0\0\0" * 2_000_000), FLAC),
    "tags without number": (endless_id3(), MP3),
    "no frame anywhere": (b"ID3\x03\x00\x00\x00\x00\x00\x00" + bytes(30_000_000), MP3),
    "pages without number": (b"OggS\x00\x02" + bytes(20) + b"\x01\x00" + b"OggS" * 3_000_000, OGG),
    "comments without number": (
        an_ogg(1.0).replace(struct.pack("<I", 0) + b"\x01", b"\xff\xff\xff\x7f\x01"),
        OGG,
    ),
    "chunks without number": (b"RIFF\xff\xff\xff\x7fWAVE" + b"junk\0\0\0\0" * 1_000_000, WAV),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_given_up_on(tmp_path: Path, name: str) -> None:
    body, kind = HOSTILE[name]
    path = tmp_path / "a"
    path.write_bytes(body)
    assert duration_s(path, kind) is None


@pytest.mark.parametrize(("sound", "kind"), SOUNDS, ids=NAMES)
def test_damage_anywhere_makes_no_error(tmp_path: Path, sound: bytes, kind: MediaKind) -> None:
    path = tmp_path / "a"
    chance = random.Random(kind.extension)  # noqa: S311 - the same damage each time
    for _ in range(100):
        damaged = bytearray(sound[: chance.randrange(len(sound) + 1)] + sound[-50:])
        for _ in range(8):
            damaged[chance.randrange(min(len(damaged), 300))] = chance.randrange(256)
        path.write_bytes(damaged)
        found = duration_s(path, kind)
        assert found is None or found > 0
