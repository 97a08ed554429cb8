"""What kind of token a key is, for every entry of a vocabulary: special, punctuation, function or content word."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from batchscope.insight.token_text import bytes_of, decoder_of, goes_on

KeyClass = Literal["cls", "sep", "punctuation", "function", "content", "rest"]
KEY_CLASSES: tuple[KeyClass, ...] = get_args(KeyClass)
WORDS = (
    "a an the this that these those each every either neither some any no all both few many much more most other "
    "another such what which whose i me my mine myself you your yours yourself yourselves he him his himself she her "
    "hers herself it its itself we us our ours ourselves they them their theirs themselves who whom one ones someone "
    "anyone everyone nobody something anything everything nothing of in to for with on at by from up about into over "
    "after under between out through during before since without within along across behind beyond against among "
    "around near off down above below toward towards upon despite per than as like and or but nor so yet if because "
    "although though while whereas unless until whether when where why how am is are was were be been being have has "
    "had having do does did doing will would shall should can could may might must ought not n't there here then too "
    "very just only also even again ever never s t d ll m re ve don didn doesn isn wasn aren weren won wouldn couldn "
    "shouldn hasn haven hadn "
)
FUNCTION_WORDS = frozenset(WORDS.split())
"""English words of the closed classes, and what is left of them at an apostrophe."""


def key_classes(tokenizer: PreTrainedTokenizerFast) -> NDArray[np.int8]:
    """Position in ``KEY_CLASSES`` of every token id, ``[V]``.

    A token that begins a word is a function word if it is one of ``FUNCTION_WORDS`` in small letters, else a content
    word, also where the word goes on. ``rest`` is what goes on with a word, and every other special token.
    """
    size = len(tokenizer)
    pieces = [str(token) for token in tokenizer.convert_ids_to_tokens(list(range(size)))]
    decoder = decoder_of(tokenizer)
    texts = [bytes_of(piece, decoder).decode(errors="replace") for piece in pieces]
    special = set(tokenizer.all_special_ids)
    first = {tokenizer.cls_token_id, tokenizer.bos_token_id} - {None}
    last = {tokenizer.sep_token_id, tokenizer.eos_token_id} - {None} - first
    found = np.empty(size, np.int8)
    for number, (piece, text) in enumerate(zip(pieces, texts, strict=True)):
        if number in first or number in last:
            kind: KeyClass = "cls" if number in first else "sep"
        elif number in special:
            kind = "rest"
        else:
            kind = _kind_of(text.removeprefix("##") if piece.startswith("##") else text, goes_on(piece, decoder))
        found[number] = KEY_CLASSES.index(kind)
    return found


def _kind_of(text: str, continues: bool) -> KeyClass:
    """Of a token that is not special, by its text and whether it goes on with a word."""
    word = text.strip().lower()
    if not any(character.isalnum() for character in word):
        return "punctuation"
    if continues:
        return "rest"
    return "function" if word in FUNCTION_WORDS else "content"
