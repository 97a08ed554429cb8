"""From texts to padded token ids: the ids of the model's own tokenizer, cut to a length.

With ``truncation: head`` most of a long review is discarded. The text is therefore cut before it is tokenised, where
that changes no token (``cuts_safely``). The argument follows; a check at run time supports it.

*Claim.* Let a text be P + W. P ends in a letter, a digit or another visible ASCII character, and W begins with a
space, tab or line break. Then the tokens of P are the first tokens of P + W.

1. *Added tokens* (``[MASK]`` …) are found first, leftmost and longest. None of them has white space after another
   character, so no match crosses from P into W, and the matches inside P are those of the whole text. White space that
   a match absorbs on its right lies in W; on its left it lies before the match. For a ``single_word`` token, white
   space on its right counts like the end of the text. (Tokens that are found in normalised text: the same, after 2.)
2. *Normaliser*: none, ``NFC`` or ``BertNormalizer``. The latter drops, replaces, pads and lowers one character at a
   time. Decomposition, reordering and composition stop at W's first character: it is a starter, it composes with
   nothing before it, and nothing before it reorders across it. So the normal form of P + W is that of P followed by
   that of W, and the normal form of W still begins with white space.
3. *Pre-tokeniser*: ``BertPreTokenizer``, ``Whitespace`` and ``WhitespaceSplit`` end every word at white space, so the
   words of P are the first words of P + W. ``ByteLevel`` (with its regular expression, and a normaliser that drops
   nothing, so that P still ends in something visible) matches from the left. No alternative continues from a visible
   character to white space. The only one that looks ahead, ``\\s+(?!\\S)``, looks at the character after a run of
   white space, which for a run inside P is inside P. So a match ends where P ends, and the matches before it are
   those of P.
4. *Model*: ``WordPiece``, ``WordLevel`` and ``BPE`` without dropout see one word at a time.

So if P has more tokens than there is room for, the whole text would be cut to the same tokens, and it is longer than
the room as well. Otherwise a longer P is taken, and finally the whole text.
"""

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batchscope.data.spec import Truncation
from batchscope.data.tokenizer_errors import explained
from batchscope.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger(__name__)
BATCH = 1024
CANNOT_WRITE = "checkpoint: its tokenizer cannot write a text"
CHARACTERS_PER_TOKEN = 5
CHECKED = 64
VISIBLE_THEN_WHITE = re.compile(r"[\w!-~](?=[ \t\n\r])")
WHITE_AFTER_SOMETHING = re.compile(r"[^ \t\n\r][ \t\n\r]")


@dataclass(frozen=True)
class Encoded:
    """N texts as a model reads them, L tokens each."""

    input_ids: NDArray[np.uint16] | NDArray[np.int32]
    """[N, L] token ids, uint16 where the vocabulary fits, else int32; padded on the right."""
    length: NDArray[np.int32]
    """[N] tokens before the padding, special tokens included."""
    truncated: NDArray[np.bool_]
    """[N] whether the text has more tokens than were kept."""


def encode(tokenizer: "PreTrainedTokenizerFast", texts: list[str], max_length: int, truncation: Truncation) -> Encoded:
    """Tokenises N texts, ``max_length`` tokens each.

    The tokenizer's special tokens surround what ``truncation`` keeps. For ``head`` the ids are those of
    ``tokenizer(texts, truncation=True, padding="max_length", max_length=max_length)``. Raises UserError for a text that
    the tokenizer cannot write, or of which no token remains.
    """
    before, after = special_tokens_around(tokenizer, texts)
    room = max_length - len(before) - len(after)
    kind = np.uint16 if needed_embeddings(tokenizer) <= np.iinfo(np.uint16).max + 1 else np.int32
    ids = np.full((len(texts), max_length), tokenizer.pad_token_id, dtype=kind)
    lengths, truncated = np.zeros(len(texts), np.int32), np.zeros(len(texts), np.bool_)
    cuts = truncation == "head" and _cuts_these_safely(tokenizer, texts, room)
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        contents = heads(tokenizer, batch, room) if cuts else whole(tokenizer, batch)
        for row, content in enumerate(contents, start):
            kept = before + shortened(content, room, truncation) + after
            ids[row, : len(kept)] = kept
            lengths[row] = len(kept)
            truncated[row] = len(content) > room
    if not lengths.all():
        raise UserError(_no_tokens(texts, lengths))
    empty = int((lengths == max_length - room).sum())
    if empty:
        log.warning(f"{empty} of {len(texts)} texts have no token that the tokenizer knows, besides the special ones")
    return Encoded(ids, lengths, truncated)


def needed_embeddings(tokenizer: "PreTrainedTokenizerFast") -> int:
    """The highest token id and one: there are tokenizers that leave ids out."""
    return int(max(tokenizer.get_vocab().values())) + 1


def special_tokens_around(
    tokenizer: "PreTrainedTokenizerFast", texts: Sequence[str] = ()
) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a text.

    They are found around a letter; where the tokenizer cannot write it, around the first of ``texts`` that gives a
    token. Raises UserError if they are not around the text, but in it.
    """
    for text in ("a", *texts):
        (content,) = whole(tokenizer, [text])
        if content:
            with explained(CANNOT_WRITE):
                ids: list[int] = tokenizer(text)["input_ids"]
            places = (n for n in range(len(ids) - len(content) + 1) if ids[n : n + len(content)] == content)
            first = next(places, None)
            if first is None:
                raise UserError("checkpoint: its tokenizer changes the tokens of a text when it adds special ones")
            return ids[:first], ids[first + len(content) :]
    return list(tokenizer("")["input_ids"]), []


def _no_tokens(texts: Sequence[str], lengths: NDArray[np.int32]) -> str:
    rows = np.flatnonzero(lengths == 0)
    many = f"{len(rows)} of {len(texts)} texts, the first of them" if len(rows) > 1 else "the text"
    return (
        f"checkpoint: its tokenizer makes no token of {many} {texts[rows[0]][:80]!r}: it knows none of the characters, "
        "and puts no special tokens around a text. Remove such texts, or take a model whose tokenizer knows them"
    )


def shortened(content: list[int], room: int, truncation: Truncation) -> list[int]:
    """At most ``room`` of a text's own tokens: from its ``head``, its ``tail``, or a quarter from the head and the
    rest from the tail (``head_tail``)."""
    if len(content) <= room or truncation == "head":
        return content[:room]
    head = room // 4 if truncation == "head_tail" else 0
    return content[:head] + content[len(content) - (room - head) :]


def whole(tokenizer: "PreTrainedTokenizerFast", texts: list[str]) -> list[list[int]]:
    """All tokens of each text, without special ones; on as many threads as RAYON_NUM_THREADS says."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    with explained(CANNOT_WRITE):
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]


def heads(tokenizer: "PreTrainedTokenizerFast", texts: list[str], room: int) -> list[list[int]]:
    """The first tokens of each text: more than ``room`` of them, or all; for tokenizers that cut safely."""
    found: list[list[int]] = [[]] * len(texts)
    waiting, characters = list(range(len(texts))), CHARACTERS_PER_TOKEN * (room + 1)
    while waiting:
        cut = [cut_text(texts[number], characters) for number in waiting]
        tokens = whole(tokenizer, cut)
        short = []
        for number, prefix, ids in zip(waiting, cut, tokens, strict=True):
            found[number] = ids
            if len(ids) <= room and len(prefix) < len(texts[number]):
                short.append(number)
        waiting, characters = short, 4 * characters
    return found


def cut_text(text: str, characters: int) -> str:
    """The text up to its first white space that follows a visible character, after ``characters`` characters."""
    place = VISIBLE_THEN_WHITE.search(text, characters) if len(text) > characters else None
    return text if place is None else text[: place.end()]


def cuts_safely(tokenizer: "PreTrainedTokenizerFast") -> bool:
    """Whether the claim above holds for this tokenizer, by the kinds of its parts."""
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    normaliser, words, model = parts["normalizer"] or {}, parts["pre_tokenizer"] or {}, parts["model"]
    if words.get("type") == "ByteLevel":
        word_by_word = words["use_regex"] and normaliser.get("type") in (None, "NFC")
    else:
        word_by_word = words.get("type") in ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")
    return (
        word_by_word
        and normaliser.get("type") in (None, "NFC", "BertNormalizer")
        and model["type"] in ("WordPiece", "WordLevel", "BPE")
        and not model.get("dropout")
        and not any(WHITE_AFTER_SOMETHING.search(token["content"]) for token in parts["added_tokens"])
    )


def _cuts_these_safely(tokenizer: "PreTrainedTokenizerFast", texts: list[str], room: int) -> bool:
    """Whether cutting is safe for this tokenizer, and some of the texts, evenly spread, agree."""
    if not cuts_safely(tokenizer):
        return False
    some = texts[:: max(1, len(texts) // CHECKED)]
    for text, ids, head in zip(some, whole(tokenizer, some), heads(tokenizer, some, room), strict=True):
        if head[: room + 1] != ids[: room + 1]:
            log.warning(f"whole reviews are tokenised, because cutting one first changed its tokens: {text[:80]!r}")
            return False
    return True
