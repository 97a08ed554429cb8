"""Which characters the figures can print: those of the fonts that are installed here, others as code points."""

import unicodedata
from functools import cache

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

MAIN = "DejaVu Sans"
"""Comes with matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew and many symbols."""
OTHERS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Malgun Gothic"),
    *("Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Thai", "Nirmala UI"),
    *("Noto Emoji", "Symbola", "FreeSerif"),
)
"""Fonts that fill in for other scripts, where they are installed."""


def font_families() -> list[str]:
    """The main font and those of ``OTHERS`` that are installed."""
    installed = {font.name for font in fontManager.ttflist}
    return [MAIN, *(name for name in OTHERS if name in installed)]


def printable(text: str) -> str:
    """Text of characters that a font has. Others are written as their code points, such as `[U+1F600]`.

    Characters without a shape of their own that no font has, such as a variation selector, are left out.
    """
    characters = _characters()
    return "".join(
        character if ord(character) in characters or character.isspace() else _code_point(character)
        for character in text
    )


@cache
def _characters() -> frozenset[int]:
    """The code points that one of the fonts has."""
    paths = (findfont(FontProperties(family=name), fallback_to_default=False) for name in font_families())
    return frozenset(code for path in paths for code in get_font(path).get_charmap())


def _code_point(character: str) -> str:
    shapeless = unicodedata.category(character) in ("Cf", "Mn", "Cc")
    return "" if shapeless else f"[U+{ord(character):04X}]"
