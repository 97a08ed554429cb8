"""Data inside the page: what its scripts read, as JSON that no text can break out of."""

import json
import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from batchscope.report.visible import visible

ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
"""Characters that could end a script element or a line of it."""


def json_island(name: str, value: object) -> Markup:
    """``value`` as ``<script type="application/json" id="data-{name}">``, which the browser reads and never runs.

    Numbers that are not finite become null. Control characters and overrides of the writing direction in texts become
    their code points.
    """
    text = json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(ESCAPED)
    return Markup(f'<script type="application/json" id="data-{name}">{text}</script>')


def _plain(value: object) -> object:
    """``value`` of JSON's own types."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(str(key)): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
