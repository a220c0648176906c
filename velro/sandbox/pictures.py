"""Pictures drawn from a prompt and a seed: the same two give the same bytes."""

from __future__ import annotations

import colorsys
import io
import math
import random
import textwrap
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

Format = Literal["png", "jpeg", "webp", "gif"]
Colour = tuple[int, int, int]

MEDIA_TYPES: dict[Format, str] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
}


@dataclass(frozen=True, slots=True)
class Motif:
    """What decides a picture's bytes. Sizes are in pixels."""

    prompt: str
    seed: int
    index: int
    width: int
    height: int
    format: Format


@lru_cache(maxsize=64)
def draw(motif: Motif) -> bytes:
    """Draw an evening landscape with the prompt's words beneath: about 20 ms at 512 x 512."""
    # Repeatable on purpose: nothing secret hangs on these numbers.
    chance = random.Random(f"{motif.seed}/{motif.index}/{motif.prompt}")  # noqa: S311
    hue = chance.random()
    sky = _sky(motif, chance, hue)
    if motif.format == "gif":
        return _sunset(sky, motif, chance, hue)
    picture = _landscape(sky, motif, chance, hue)
    _write(picture, motif)
    return _encoded(picture, motif.format)


def _sky(motif: Motif, chance: random.Random, hue: float) -> Image.Image:
    """A gradient from a deep colour above to a warm one at the horizon."""
    slope = _resized(Image.linear_gradient("L"), motif)
    warm = (hue + chance.uniform(0.35, 0.55)) % 1.0
    return ImageOps.colorize(
        slope,
        black=_colour(hue, 0.65, 0.30),
        mid=_colour(warm, 0.45, 0.75),
        white=_colour(warm + 0.06, 0.30, 0.98),
    )


def _landscape(
    sky: Image.Image, motif: Motif, chance: random.Random, hue: float, *, sun_height: float = 0.5
) -> Image.Image:
    width, height = motif.width, motif.height
    radius = 0.09 * min(width, height) * chance.uniform(0.8, 1.4)
    centre = (width * chance.uniform(0.2, 0.8), height * (0.75 - 0.55 * sun_height))
    glow = Image.new("L", (width // 4, height // 4), 0)
    x, y, r = centre[0] / 4, centre[1] / 4, radius / 4
    ImageDraw.Draw(glow).ellipse((x - 2 * r, y - 2 * r, x + 2 * r, y + 2 * r), fill=130)
    glow = _resized(glow.filter(ImageFilter.GaussianBlur(r)), motif)
    picture = sky.copy()
    picture.paste(Image.new("RGB", (width, height), (255, 244, 214)), mask=glow)
    canvas = ImageDraw.Draw(picture)
    x, y = centre
    canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 248, 228))
    for layer in range(4):
        depth = layer / 3
        ridge = _ridge(chance, width, height * (0.56 + 0.11 * layer), height * 0.07)
        outline = [*ridge, (width, height), (0, height)]
        canvas.polygon(
            outline, fill=_colour(hue + 0.03 * layer, 0.35 + 0.3 * depth, 0.62 - 0.48 * depth)
        )
    return picture


def _ridge(
    chance: random.Random, width: int, level: float, rise: float
) -> list[tuple[float, float]]:
    """A line of hills: three waves of chance, each finer and flatter than the one before."""
    waves = [
        (chance.uniform(0.7, 1.3) * 2**n, chance.uniform(0, math.tau), rise / 1.8**n)
        for n in range(1, 4)
    ]
    step = max(2, width // 160)
    return [
        (
            x,
            level
            - sum(
                size * math.sin(turns * math.tau * x / width + start)
                for turns, start, size in waves
            ),
        )
        for x in range(0, width + step, step)
    ]


def _write(picture: Image.Image, motif: Motif) -> None:
    """Set the prompt's first words near the lower edge."""
    size = max(10, motif.width // 24)
    font = ImageFont.load_default(size)
    words = textwrap.shorten(motif.prompt, width=120, placeholder="…")
    lines = textwrap.wrap(words, width=34)[:3]
    canvas = ImageDraw.Draw(picture)
    canvas.multiline_text(
        (motif.width / 2, motif.height - size),
        "\n".join(lines),
        font=font,
        fill=(255, 250, 240),
        anchor="md",
        align="center",
        stroke_width=max(1, size // 14),
        stroke_fill=(24, 22, 38),
    )


def _sunset(sky: Image.Image, motif: Motif, chance: random.Random, hue: float) -> bytes:
    """The same landscape while its sun goes down, in twelve frames."""
    state = chance.getstate()
    frames: list[Image.Image] = []
    for frame in range(12):
        chance.setstate(state)
        picture = _landscape(sky, motif, chance, hue, sun_height=1.0 - frame / 11)
        _write(picture, motif)
        frames.append(picture.quantize(128))
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=120, loop=0)
    return out.getvalue()


def _encoded(picture: Image.Image, picture_format: Format) -> bytes:
    out = io.BytesIO()
    match picture_format:
        case "png":
            # Level 1: a third of the time of the default for a tenth more bytes.
            picture.save(out, "PNG", compress_level=1)
        case "webp":
            picture.save(out, "WEBP", quality=85, method=0)
        case "jpeg":
            picture.save(out, "JPEG", quality=88)
        case "gif":
            picture.save(out, "GIF")
    return out.getvalue()


def _resized(image: Image.Image, motif: Motif) -> Image.Image:
    return image.resize((motif.width, motif.height))  # pyright: ignore[reportUnknownMemberType] - Pillow names numpy's type, which is not installed


def _colour(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return (round(red * 255), round(green * 255), round(blue * 255))
