"""Styles and scripts of the page, inlined, and the policy that lets the browser run these scripts and no other."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from markupsafe import Markup

FOLDER = Path(__file__).parent / "assets"
SCRIPTS = ("vega.js", "page.js", "charts.js", "attention_viewer.js", "atlas.js")
"""The scripts, in the order in which they run. ``vega.js`` is Vega's own (``make vega``)."""


@cache
def style() -> Markup:
    """The page's style sheet."""
    return Markup((FOLDER / "page.css").read_text(encoding="utf-8"))


@cache
def scripts() -> tuple[Markup, ...]:
    """The text of every script element."""
    return tuple(_script((FOLDER / name).read_text(encoding="utf-8")) for name in SCRIPTS)


def content_policy() -> str:
    """The content security policy: these scripts by their hashes, no other; no eval; nothing from the network."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts())
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'"


def _script(text: str) -> Markup:
    """A script that cannot end its element early."""
    # Within a string or a regular expression, where alone they occur, the two forms mean the same.
    safe = re.sub(r"</(?=script)", r"<\\/", text, flags=re.IGNORECASE).replace("<!--", r"<\!--")
    return Markup(safe)
