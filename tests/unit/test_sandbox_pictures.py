from __future__ import annotations

import io

import pytest
from PIL import Image

from velro.sandbox.pictures import MEDIA_TYPES, Format, Motif, draw

FORMATS: list[Format] = ["png", "jpeg", "webp", "gif"]


def motif(**changes: object) -> Motif:
    values: dict[str, object] = {
        "prompt": "a lighthouse in a storm",
        "seed": 7,
        "index": 0,
        "width": 96,
        "height": 64,
        "format": "png",
    }
    return Motif(**(values | changes))  # pyright: ignore[reportArgumentType] - checked by drawing


@pytest.mark.parametrize("picture_format", FORMATS)
def test_a_picture_is_what_its_type_says(picture_format: Format) -> None:
    content = draw(motif(format=picture_format))
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        assert image.size == (96, 64)
        assert Image.MIME[image.format or ""] == MEDIA_TYPES[picture_format]


@pytest.mark.parametrize("picture_format", FORMATS)
def test_the_same_prompt_and_seed_give_the_same_bytes(picture_format: Format) -> None:
    first = draw(motif(format=picture_format))
    draw.cache_clear()
    assert draw(motif(format=picture_format)) == first


def test_another_prompt_seed_index_or_size_gives_another_picture() -> None:
    changes = [{}, {"prompt": "an owl"}, {"seed": 8}, {"index": 1}, {"width": 64}]
    assert len({draw(motif(**change)) for change in changes}) == len(changes)


def test_a_video_moves() -> None:
    with Image.open(io.BytesIO(draw(motif(format="gif")))) as image:
        assert getattr(image, "n_frames", 1) == 12


def test_a_prompt_of_any_length_fits() -> None:
    assert draw(motif(prompt="very " * 2000))
    assert draw(motif(prompt=""))
