"""Pictures in the page: vector graphics where they can be, and never enlarged."""

import base64
from pathlib import Path

import pytest
from PIL import Image

from batchscope.report.pictures import LARGEST_SVG, embedded

SVG = '<svg xmlns="http://www.w3.org/2000/svg">{}</svg>'


def figure(folder: Path, svg: str, size: tuple[int, int] = (800, 400)) -> None:
    Image.new("RGB", size, "#8a2f6b").save(folder / "f.png")
    (folder / "f.svg").write_text(svg)


def test_a_small_drawing_is_embedded_as_it_is(tmp_path: Path) -> None:
    figure(tmp_path, SVG.format("<g/>"))
    picture = embedded(tmp_path, "f")
    kind, _, content = picture.src.partition(";base64,")
    assert kind == "data:image/svg+xml"
    assert base64.b64decode(content).decode() == SVG.format("<g/>")


@pytest.mark.parametrize("inside", ["<image/>", " " * LARGEST_SVG], ids=["pixels", "large"])
def test_a_drawing_of_pixels_or_of_many_points_is_embedded_in_pixels(tmp_path: Path, inside: str) -> None:
    figure(tmp_path, SVG.format(inside))
    assert embedded(tmp_path, "f").src.startswith("data:image/webp")


@pytest.mark.parametrize("inside", ["<g/>", "<image/>"])
@pytest.mark.parametrize("width", [800, 4000])
def test_a_picture_is_as_large_as_on_paper(tmp_path: Path, inside: str, width: int) -> None:
    """A PNG has 160 pixels per inch, CSS 96: an upscaled figure is a blurry one."""
    figure(tmp_path, SVG.format(inside), (width, width // 2))
    picture = embedded(tmp_path, "f")
    assert (picture.width, picture.height) == (width * 96 // 160, width * 96 // 320)


def test_both_formats_are_needed(tmp_path: Path) -> None:
    figure(tmp_path, SVG.format(""))
    (tmp_path / "f.svg").unlink()
    with pytest.raises(FileNotFoundError):
        embedded(tmp_path, "f")
