"""How text is said: what one text of the data is called, for which the config may give another noun than `review`, and
how anybody's text is shown in a terminal or a log."""

import re
from collections.abc import Iterable
from typing import NamedTuple

REVIEW = re.compile(r"(?<![\w./\\'\"`=-])(?:(?P<article>[Aa]) )?(?P<noun>[Rr]eviews?)(?!\w|[/\\\"`=-]|'(?!s\b)|\.\w)")
"""The word where it stands free: no part of a path, a name in quotes, a key or a file name."""

UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
"""Characters that steer a terminal or that turn or hide other text, but for tabs, line breaks and joiners."""


def visible(text: str) -> str:
    """Text for a terminal or a log, in which ``UNSEEN`` characters are written as escapes such as ``\\x1b``."""
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def plural(noun: str) -> str:
    """The regular plural: ``tickets``, ``queries``, ``batches``, ``epochs``."""
    if noun.endswith("y") and noun[-2:-1] not in ("a", "e", "i", "o", "u", ""):
        return f"{noun[:-1]}ies"
    hissing = noun.endswith(("s", "x", "z", "sh")) or (noun.endswith("ch") and not noun.endswith("och"))
    return f"{noun}es" if hissing else f"{noun}s"


class Wording(NamedTuple):
    """The noun for one text, and for several."""

    one: str = "review"
    many: str = "reviews"

    def of(self, text: str) -> str:
        """The text with `review` and `reviews` in these words."""
        return text if self == Wording() else REVIEW.sub(self._word, text)

    def beside(self, names: Iterable[str]) -> "Wording":
        """These words, or `review` where one of the study's own names is that word and would be replaced with it."""
        return Wording() if {name.lower() for name in names} & set(Wording()) else self

    def _word(self, found: re.Match[str]) -> str:
        noun = self.many if found["noun"].endswith("s") else self.one
        if found["noun"][0] == "R":
            noun = noun[0].upper() + noun[1:]
        if not found["article"]:
            return noun
        return f"{found['article']}{'n' if noun[0].lower() in 'aeiou' else ''} {noun}"


REVIEWS = Wording()
"""Where the config says nothing else."""
