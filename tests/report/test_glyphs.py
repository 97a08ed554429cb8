"""Text in figures: what no font has is written as its code point, and nothing warns."""

import warnings

import pytest
from matplotlib.figure import Figure

from batchscope.report.glyphs import printable
from batchscope.report.style import frame

EVERYWHERE = "plain Żółć naïve مراجعة 影评 अच्छी 😀 ❤️ \u200d \U0001f3f3\ufe0f\u200d\U0001f308 \ue000"


@pytest.mark.parametrize("text", ["plain", "Żółć naïve", "± × → “”", "a\tb\n"])
def test_what_the_font_has_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_what_no_font_has_is_a_code_point() -> None:
    assert printable("a\ue000b") == "a[U+E000]b"


def test_shapeless_characters_that_no_font_has_are_left_out() -> None:
    assert printable("a\U000e0100b") == "ab"


def test_drawing_any_text_warns_of_no_missing_glyph() -> None:
    figure = Figure()
    frame(figure, printable(EVERYWHERE), printable(EVERYWHERE))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
