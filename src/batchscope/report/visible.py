"""Text of the user as a browser shows it: no character of it acts on the page or on the text beside it."""

import re

from markupsafe import Markup, escape

UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]")
"""Control characters (those of terminals too), overrides of the writing direction, halves of surrogate pairs."""


def visible(text: str) -> str:
    """The text with every character of ``UNSEEN`` as its code point, such as `[U+202E]`."""
    return UNSEEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", text)


CODE = re.compile(r"`([a-z_][\w.]*(?:: [\w.]+)?)`")
"""A key of the config, alone or with its value, or a command."""


def with_code(text: str) -> Markup:
    """One of our sentences as markup: a name in backticks, such as a key of the config, is set as code."""
    return Markup(CODE.sub(r"<code>\1</code>", str(escape(visible(text)))))
