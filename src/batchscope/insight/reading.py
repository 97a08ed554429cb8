"""Which part of a text a model reads: what truncation leaves of it, and what it cuts away."""

from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from batchscope.data.spec import Truncation
from batchscope.errors import UserError


class Reading(NamedTuple):
    """The model does not read ``text[start:end]``; it reads the whole text where the two are equal."""

    start: int
    end: int


class Reader:
    """A model's tokenizer, and which end of a long text it keeps."""

    def __init__(self, tokenizer: Tokenizer, truncation: Truncation, place: Path) -> None:
        self.tokenizer, self.truncation, self.place = tokenizer, truncation, place
        tokenizer.no_truncation()
        tokenizer.no_padding()

    @classmethod
    def load(cls, folder: Path, truncation: Truncation) -> Self:
        """The tokenizer in a folder of tokens. Raises UserError if there is none that can be read."""
        path = folder / "tokenizer.json"
        try:
            return cls(Tokenizer.from_file(str(path)), truncation, path)
        except Exception as error:  # the library raises Exception itself
            raise UserError(f"cannot read {path}: {error}; start the workflow again") from None

    def cut(self, text: str, input_ids: NDArray[np.integer]) -> Reading:
        """What is cut out of ``text`` for a model that reads ``input_ids`` ``[L]``, special tokens included.

        A character that two tokens share counts as read if one of them is. Raises UserError where the ids are not
        those of the text.
        """
        whole = self.tokenizer.encode(text, add_special_tokens=False)
        ids, offsets = list(whole.ids), list(whole.offsets)
        read = [int(number) for number in input_ids]
        head, tail = kept(len(ids), len(read) - self._special(read, ids), self.truncation)
        if not _within(read, ids[:head] + ids[len(ids) - tail :]):
            raise UserError(f"{self.place} does not give the tokens of the test reviews; start the workflow again")
        if head + tail == len(ids):
            return Reading(len(text), len(text))
        start = max((end for _, end in offsets[:head]), default=0)
        end = min((begin for begin, _ in offsets[len(ids) - tail :]), default=len(text)) if tail else len(text)
        return Reading(start, max(start, end))

    def _special(self, read: list[int], ids: list[int]) -> int:
        """How many of the ids that are read are special tokens around the text."""
        added = self.tokenizer.num_special_tokens_to_add(is_pair=False)
        return added if len(read) - added <= len(ids) else len(read) - len(ids)


def kept(there: int, room: int, truncation: Truncation) -> tuple[int, int]:
    """How many of a text's tokens are kept from its head and from its tail: as ``data.encode.shortened`` keeps them."""
    if there <= room or truncation == "head":
        return min(there, room), 0
    head = room // 4 if truncation == "head_tail" else 0
    return head, room - head


def _within(read: list[int], content: list[int]) -> bool:
    """Whether the content stands in one piece within what is read."""
    return any(read[n : n + len(content)] == content for n in range(len(read) - len(content) + 1))
