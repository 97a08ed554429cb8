"""The errors that the user can fix, and how a message counts."""

from batchscope.wording import plural


class UserError(Exception):
    """A mistake in the config, the data or the machine. The message says what to change; no traceback is shown."""


def counted(count: int, noun: str) -> str:
    """``1 run``, ``2,000 runs``."""
    return f"{count:,} {noun if count == 1 else plural(noun)}"


def either(words: list[str]) -> str:
    """`` `a`, `b` or `c` ``."""
    *most, last = [f"`{word}`" for word in words]
    return f"{', '.join(most)} or {last}" if most else last
