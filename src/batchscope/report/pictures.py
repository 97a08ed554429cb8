"""Figures inside the page: vector graphics where they are small, else pixels, both at their natural size."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image

LARGEST_SVG = 400_000
"""Bytes; above it, a figure of many points is smaller and faster to show in pixels."""
WIDEST = 1920
PIXELS_PER_INCH_OF_PNG = 160
PIXELS_PER_INCH_OF_CSS = 96


class Picture(NamedTuple):
    """A picture for an ``img`` element."""

    src: str
    """Data URI."""
    width: int
    """CSS pixels at which it is as large as on paper."""
    height: int


def embedded(folder: Path, stem: str) -> Picture:
    """The figure ``{stem}.svg`` of a folder, or ``{stem}.png`` if the SVG is large or holds pixels itself.

    Raises FileNotFoundError if one of the two is missing.
    """
    svg = (folder / f"{stem}.svg").read_bytes()
    png = folder / f"{stem}.png"
    if len(svg) > LARGEST_SVG or b"<image" in svg:
        return _pixels(png)
    with Image.open(png) as image:
        return _picture(svg, "svg+xml", *image.size)


def _pixels(path: Path) -> Picture:
    """A PNG as lossless WebP, no wider than a page can use."""
    image = Image.open(path).convert("RGB")
    size = image.size
    if image.width > WIDEST:
        image = image.resize((WIDEST, round(image.height * WIDEST / image.width)), Image.Resampling.LANCZOS)
        image = image.quantize(256, dither=Image.Dither.NONE).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, quality=80, method=4)
    return _picture(buffer.getvalue(), "webp", *size)


def _picture(content: bytes, kind: str, width: int, height: int) -> Picture:
    """The picture of a figure whose PNG is ``width`` × ``height`` pixels."""
    shown = PIXELS_PER_INCH_OF_CSS / PIXELS_PER_INCH_OF_PNG
    encoded = base64.b64encode(content).decode("ascii")
    return Picture(f"data:image/{kind};base64,{encoded}", round(width * shown), round(height * shown))
