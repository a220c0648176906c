"""How large a film is and how long it lasts, told by small files; hostile ones do no harm."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.media.films import Film, film
from shared.media.pictures import Dimensions
from shared.media.sniff import HEAD_BYTES, MOV, MP4, PNG, WEBM, MediaKind, sniff
from shared.object_store.port import Held

REAL = Path(__file__).parents[1] / "films"
UPRIGHT = (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
QUARTER_TURN = (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)


def box(name: bytes, *inside: bytes) -> bytes:
    body = b"".join(inside)
    return (8 + len(body)).to_bytes(4, "big") + name + body


def wide_box(name: bytes, body: bytes) -> bytes:
    return b"\0\0\0\x01" + name + (16 + len(body)).to_bytes(8, "big") + body


def track(
    width: int, height: int, matrix: tuple[int, ...] = UPRIGHT, *, handler: bytes = b"vide"
) -> bytes:
    header = bytes(40) + struct.pack(">9iII", *matrix, width << 16, height << 16)
    return box(
        b"trak",
        box(b"tkhd", header),
        box(b"mdia", box(b"hdlr", bytes(8) + handler + bytes(13))),
    )


def an_mp4(*tracks: bytes, seconds: float = 1.5, scale: int = 600) -> bytes:
    times = struct.pack(">IIIII", 0, 0, 0, scale, int(seconds * scale)) + bytes(80)
    return (
        box(b"ftyp", b"isom", bytes(4))
        + wide_box(b"mdat", bytes(1000))
        + box(b"moov", box(b"mvhd", times), *tracks)
    )


def element(name: int, body: bytes) -> bytes:
    named = name.to_bytes((name.bit_length() + 7) // 8, "big")
    return named + (len(body) | 1 << 56).to_bytes(8, "big") + body


def a_webm(width: int, height: int, seconds: float, *, known_length: bool = True) -> bytes:
    video = element(0xB0, width.to_bytes(2, "big")) + element(0xBA, height.to_bytes(2, "big"))
    inside = (
        element(0xEC, bytes(50))
        + element(
            0x1549A966,
            element(0x2AD7B1, (1_000_000).to_bytes(3, "big"))
            + element(0x4489, struct.pack(">d", seconds * 1000)),
        )
        + element(0x1654AE6B, element(0xAE, element(0x83, b"\x01") + element(0xE0, video)))
    )
    start = element(0x1A45DFA3, element(0x4282, b"webm"))
    if known_length:
        return start + element(0x18538067, inside)
    return (
        start
        + b"\x18\x53\x80\x67\x01"
        + b"\xff" * 7
        + inside
        + b"\x1f\x43\xb6\x75\x01"
        + b"\xff" * 7
    )


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("lying.mp4", MP4, Film(Dimensions(90, 160), 0.8)),
        ("film.webm", WEBM, Film(Dimensions(160, 90), 0.808)),
    ],
)
def test_a_film_of_a_real_encoder_tells_what_it_is(name: str, kind: MediaKind, told: Film) -> None:
    path = REAL / name
    assert sniff(path.read_bytes()[:HEAD_BYTES], announced=None) is kind
    assert film(path, kind) == told


@pytest.mark.parametrize("kind", [MP4, MOV])
def test_a_silent_film_tells_its_size_and_how_long_it_lasts(kind: MediaKind) -> None:
    assert film(Held(an_mp4(track(1920, 1080))), kind) == Film(Dimensions(1920, 1080), 1.5)


def test_the_size_is_that_of_the_pictures_and_not_of_the_sound() -> None:
    sounding = an_mp4(track(0, 0, handler=b"soun"), track(640, 480))
    assert film(Held(sounding), MP4).size == Dimensions(640, 480)


def test_a_film_that_was_made_lying_has_the_size_in_which_it_is_shown() -> None:
    assert film(Held(an_mp4(track(1920, 1080, QUARTER_TURN))), MP4).size == Dimensions(1080, 1920)


@pytest.mark.parametrize("known_length", [True, False])
def test_a_webm_tells_its_size_and_how_long_it_lasts(*, known_length: bool) -> None:
    data = a_webm(1280, 720, 2.25, known_length=known_length)
    assert film(Held(data), WEBM) == Film(Dimensions(1280, 720), 2.25)


def test_what_is_no_film_tells_nothing() -> None:
    assert film(Held(an_mp4(track(1, 1))), PNG) == Film()
    assert film(Held(box(b"ftyp", b"isom")), MP4) == Film()


def test_what_is_beyond_belief_is_not_believed_and_the_rest_is() -> None:
    assert film(Held(an_mp4(track(640, 480), seconds=4_000_000)), MP4) == Film(Dimensions(640, 480))
    assert film(Held(an_mp4(track(0, 480))), MP4) == Film(None, 1.5)


def test_a_film_that_says_that_its_length_is_not_known_has_none() -> None:
    scale = 90_000  # at which all ones are 13 hours
    unknown = an_mp4(track(640, 480), seconds=(2**32 - 1) / scale, scale=scale)
    assert b"\xff" * 4 in unknown
    assert film(Held(unknown), MP4) == Film(Dimensions(640, 480))


HOSTILE = {
    "boxes without number": (an_mp4(box(b"free") * 500_000), MP4),
    "tracks without number": (an_mp4(box(b"trak", box(b"mdia")) * 500_000), MP4),
    "a box that reaches out": (box(b"moov", b"\x7f\xff\xff\xfftrak"), MP4),
    "a box that goes back": (box(b"moov", b"\0\0\0\x01trak" + bytes(8)), MP4),
    "no ticks a second": (an_mp4().replace((600).to_bytes(4, "big"), bytes(4)), MP4),
    "elements without number": (
        element(0x18538067, element(0x1654AE6B, element(0xEC, b"") * 500_000)),
        WEBM,
    ),
    "a name of nothing": (element(0x18538067, bytes(1000)), WEBM),
}


@pytest.mark.parametrize(("data", "kind"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_file_that_is_not_what_it_says_tells_nothing(
    tmp_path: Path, data: bytes, kind: MediaKind
) -> None:
    path = tmp_path / "a"
    path.write_bytes(data)
    assert film(path, kind) == Film()


GOOD = {MP4: an_mp4(track(1920, 1080)), WEBM: a_webm(1280, 720, 2.25)}


@given(
    kind=st.sampled_from(list(GOOD)),
    cut=st.integers(0, 1500),
    changes=st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), max_size=8),
)
def test_any_change_to_a_film_is_an_answer_within_bounds(
    kind: MediaKind, cut: int, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(GOOD[kind])
    for at, value in changes:
        data[at % len(data)] = value
    told = film(Held(bytes(data[: len(data) - cut])), kind)
    assert told.duration_s is None or 0 < told.duration_s <= 7 * 24 * 3600
    assert told.size is None or min(told.size.width, told.size.height) > 0
