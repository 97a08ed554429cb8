"""Tokens as text: nothing of a review is lost, and no token shows the letters that stand for bytes."""

import re

import hypothesis
import hypothesis.strategies as st
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from batchscope.data.tokenizer import trained_tokenizer
from batchscope.insight.token_text import token_texts, word_numbers

TEXTS = ["A café film, فيلم جيد 😀 naïve\n", "film فيلم café 你好"]
PART = re.compile(r"U\+([0-9A-F]{4,6}) (\d)/(\d)")


def byte_level(texts=TEXTS, size=300):
    return trained_tokenizer("modernbert", size, texts)


def byte_fallback():
    """SentencePiece's kind: ▁ for a space, and <0xE2> for bytes of characters without an entry."""
    entries = ["<unk>", "[PAD]", "▁film", "▁", "é", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(
        models.BPE({entry: n for n, entry in enumerate(entries)}, [], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(parts)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="[PAD]")


def ids_of(tokenizer, text):
    return tokenizer(text)["input_ids"]


def joined(texts):
    """The text again: of a shared character the first part counts."""
    return "".join(PART.sub(lambda part: chr(int(part[1], 16)) if part[2] == "1" else "", text) for text in texts)


def test_special_tokens_stay_and_words_are_readable():
    tokenizer = byte_level(size=400)
    assert token_texts(tokenizer, ids_of(tokenizer, "A café")) == ["[CLS]", "A", " café", "[SEP]"]


def test_accents_arabic_and_emoji_are_shown_and_shared_characters_numbered():
    tokenizer = byte_level(["nothing of the kind"])
    assert token_texts(tokenizer, ids_of(tokenizer, "é"))[1:-1] == ["U+00E9 1/2", "U+00E9 2/2"]
    assert token_texts(tokenizer, ids_of(tokenizer, "a😀"))[1:-1] == ["a", *(f"U+1F600 {n}/4" for n in (1, 2, 3, 4))]


@hypothesis.given(st.text(st.characters(exclude_categories=["Cs"])))
@hypothesis.settings(max_examples=200)
def test_byte_level_tokens_add_up_to_the_text(text):
    tokenizer = TOKENIZER
    texts = token_texts(tokenizer, ids_of(tokenizer, text))
    assert len(texts) == len(ids_of(tokenizer, text))
    hypothesis.assume(not PART.search(text) and "[" not in text)
    assert joined(texts[1:-1]) == tokenizer.backend_tokenizer.normalizer.normalize_str(text)


TOKENIZER = byte_level()


def test_bytes_that_are_no_character_are_shown_as_bytes():
    tokenizer = byte_level(["nothing"])
    first, second = ids_of(tokenizer, "é")[1:-1]
    assert token_texts(tokenizer, [first, first, second]) == ["<0xC3>", "U+00E9 1/2", "U+00E9 2/2"]


def test_sentence_pieces_and_their_bytes_are_shown_as_text():
    tokenizer = byte_fallback()
    assert token_texts(tokenizer, [2, 4, 3, *(5 + byte for byte in "ف".encode())]) == [
        " film", "é", " ", "U+0641 1/2", "U+0641 2/2",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["playing films", "Ġ is a letter of Maltese", "▁"])
def test_word_pieces_stay_as_they_are(text):
    tokenizer = trained_tokenizer("bert", 60, ["play films ing Ġ is a letter of maltese ▁ ġ"])
    ids = ids_of(tokenizer, text)
    assert token_texts(tokenizer, ids) == tokenizer.convert_ids_to_tokens(ids)


def test_a_byte_level_entry_learnt_from_real_text_is_whole():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        ["فيلم"] * 5,
        trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False),
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    assert token_texts(fast, ids_of(fast, "فيلم")) == ["فيلم"]


def test_pieces_of_a_word_share_its_number_and_punctuation_is_alone():
    pieces = trained_tokenizer("bert", 60, ["play, xplay reap"])
    ids = ids_of(pieces, "play, replay")
    texts, words = token_texts(pieces, ids), word_numbers(pieces, ids)
    assert texts[0] == "[CLS]" and texts[-1] == "[SEP]" and len(texts) > 5
    joined_words = ["".join(text.removeprefix("##") for text, word in zip(texts, words, strict=True) if word == n)
                    for n in range(max(words) + 1)]  # fmt: skip
    assert joined_words == ["[CLS]", "play", ",", "replay", "[SEP]"]


def test_words_of_bytes_begin_at_a_blank_or_after_punctuation():
    tokenizer = byte_level(["nothing"])
    ids = ids_of(tokenizer, "ab, éc! d")
    texts, words = token_texts(tokenizer, ids), word_numbers(tokenizer, ids)
    found = ["".join(text for text, word in zip(texts, words, strict=True) if word == n) for n in range(max(words) + 1)]
    assert [word.strip() for word in found if word.strip()] == [
        *("[CLS]", "ab", ",", "U+00E9 1/2U+00E9 2/2c", "!", "d", "[SEP]")
    ]
    assert word_numbers(tokenizer, []) == []
