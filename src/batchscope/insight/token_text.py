"""Tokens as text that a person can read.

Byte-level tokenizers write each byte of UTF-8 as a letter of their own: "é" is "Ã©", and a token may end within a
character. Here a token shows the text that it stands for; a character that several tokens share is shown by its code
point and the token's place in it, for example "U+1F600 2/4".
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

BYTE = {letter: byte for byte, letter in bytes_to_unicode().items()}
FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")
LATER_PART = re.compile(r"U\+[0-9A-F]{4,6} [2-9]/[2-9]")
"""How the text of a token begins that starts within a character."""


class Character(NamedTuple):
    """A character, or a byte that belongs to none, at ``start`` to ``stop`` of a byte string."""

    start: int
    stop: int
    text: str


def token_texts(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> list[str]:
    """One text per token id. Special tokens, and WordPiece's "##" before the rest of a word, stay as they are."""
    tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(list(ids))]
    added = set(tokenizer.added_tokens_encoder)
    decoder = decoder_of(tokenizer)
    texts: list[str] = []
    run: list[bytes] = []
    for token in tokens:
        if token in added:
            texts += [*shared_out(run), token]
            run = []
        else:
            run.append(bytes_of(token, decoder))
    return texts + shared_out(run)


def word_numbers(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> list[int]:
    """For each token the number of its word, from 0.

    A special token and a punctuation mark are words of their own. A tokenizer that marks no beginning of words makes
    one word of what no punctuation divides.
    """
    added, decoder = set(tokenizer.added_tokens_encoder), decoder_of(tokenizer)
    pieces = [str(token) for token in tokenizer.convert_ids_to_tokens(list(ids))]
    numbers: list[int] = []
    may_go_on = False
    for piece, text in zip(pieces, token_texts(tokenizer, ids), strict=True):
        within = LATER_PART.match(text) is not None
        letters = piece not in added and (within or any(character.isalnum() for character in text))
        new = not within and not (may_go_on and letters and goes_on(piece, decoder))
        numbers.append((numbers[-1] if numbers else -1) + int(new or not numbers))
        may_go_on = letters
    return numbers


def decoder_of(tokenizer: PreTrainedTokenizerFast) -> str:
    """The tokenizer's decoder as JSON, which says how its pieces stand for text."""
    return json.dumps(json.loads(tokenizer.backend_tokenizer.to_str())["decoder"], ensure_ascii=False)


def goes_on(piece: str, decoder: str) -> bool:
    """Whether a token, as it is in the vocabulary, goes on with the word before it instead of beginning one."""
    marker = "Ġ" if '"ByteLevel"' in decoder else "▁" if "▁" in decoder else None
    return piece.startswith("##") or (marker is not None and not piece.startswith(marker))


def bytes_of(token: str, decoder: str) -> bytes:
    """UTF-8 of the text that a token stands for, by the kind of its tokenizer's decoder (JSON)."""
    if '"ByteLevel"' in decoder and all(letter in BYTE for letter in token):
        return bytes(BYTE[letter] for letter in token)
    if '"ByteFallback"' in decoder and (byte := FALLBACK.fullmatch(token)):
        return bytes([int(byte[1], 16)])
    return (token.replace("▁", " ") if "▁" in decoder else token).encode()


def shared_out(tokens: list[bytes]) -> list[str]:
    """The text of each of some consecutive tokens, given as bytes."""
    starts = [0]
    for token in tokens:
        starts.append(starts[-1] + len(token))
    texts = [""] * len(tokens)
    position = 0
    for character in characters(b"".join(tokens)):
        while starts[position + 1] <= character.start:
            position += 1
        last = position
        while starts[last + 1] < character.stop:
            last += 1
        count = last - position + 1
        for part in range(count):
            whole = character.text if count == 1 else f"U+{ord(character.text):04X} {part + 1}/{count}"
            texts[position + part] += whole
    return texts


def characters(text: bytes) -> Iterator[Character]:
    """The characters of UTF-8 one by one; a byte that is not UTF-8 as ``<0xE2>``."""
    start = 0
    while start < len(text):
        for stop in range(start + 1, min(start + 4, len(text)) + 1):
            try:
                yield Character(start, stop, text[start:stop].decode())
                break
            except UnicodeDecodeError:
                continue
        else:
            stop = start + 1
            yield Character(start, stop, f"<0x{text[start]:02X}>")
        start = stop
