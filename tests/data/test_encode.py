"""Cutting a review before it is tokenised changes no token: nasty texts, three real tokenizers, a slow reference."""

import logging
import os
import re
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from batchscope.data import encode as stage
from batchscope.data.encode import cut_text, cuts_safely, encode, heads
from batchscope.data.spec import SyntheticSpec, Truncation
from batchscope.data.synthetic import synthetic_reviews
from batchscope.data.tokenizer import trained_tokenizer
from batchscope.errors import UserError

TEXTS = [review.text for review in synthetic_reviews(SyntheticSpec(reviews=60, seed=5, label_noise=0.0))]
PIECES = [
    *" \n\t\r\x0b\x0c\x00\x1c\x85\xa0\u2003\u200b\u2028\u3000\ufeff\ufffd",
    "   ", " \n \n", "\r\n", "\t\t ",
    "e\u0301", "\u0301", " \u0301", "\u0323\u0307", "q\u0307\u0323", "\u1100\u1161\u11a8", "İ", "ẞ", "ς Σ", "ﬁ",
    "東京", "映画 ", "\u9fff", "🎬", "👩‍👩‍👧", "\U0001e900", "مرحبا ", "हिन्दी", "\u0378",
    "don't", "I'll", "we'd've", "'s", " 're", "it 's", "n't ", "'", "''", "...", " — ", "<br /><br />", "10/10", "3.5",
    "[MASK]", " [MASK] ", "[SEP]", "[PAD]x", "x" * 120, "ab" * 60 + " ", "The film", " good", "a ", "_", "_ _", "-\n-",
]  # fmt: skip
NASTY = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=60).map("".join)


@pytest.fixture(scope="module", params=["bert", "modernbert", "minilm"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    if request.param == "minilm":
        return AutoTokenizer.from_pretrained(request.getfixturevalue("minilm"))
    return trained_tokenizer(request.param, 500, TEXTS)


def reference(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """All tokens of a text, by the public way."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, truncation=False, padding=False, verbose=False)[
        "input_ids"
    ]
    return ids


def test_these_tokenizers_cut_safely(tokenizer: PreTrainedTokenizerFast) -> None:
    assert cuts_safely(tokenizer)


@settings(max_examples=150)
@given(text=NASTY, room=st.integers(1, 12))
@example(text="film   [MASK]   film   film", room=1)
@example(text="good  \n\n  bad", room=1)
@example(text="it's  \u0301a b", room=1)
def test_the_first_tokens_are_those_of_the_whole_text(tokenizer: PreTrainedTokenizerFast, text: str, room: int) -> None:
    expected = reference(tokenizer, text)
    for place in re.finditer(stage.VISIBLE_THEN_WHITE, text):
        prefix = reference(tokenizer, text[: place.end()])
        assert expected[: len(prefix)] == prefix
    (head,) = heads(tokenizer, [text], room)
    assert head[: room + 1] == expected[: room + 1]


def test_encoding_is_what_the_tokenizer_truncates_and_tells_what_was_cut(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [
        *TEXTS,
        " ".join(TEXTS),
        "",
        " ",
        "x" * 5000,
        "x " * 5000,
        " " * 5000,
        "\x00" * 2000 + "a b",
        "".join(PIECES),
    ]
    encoded = encode(tokenizer, texts, 32, "head")
    theirs = tokenizer(texts, truncation=True, padding="max_length", max_length=32)["input_ids"]
    assert encoded.input_ids.tolist() == theirs
    assert encoded.truncated.tolist() == [len(reference(tokenizer, text)) > 30 for text in texts]


def test_a_long_review_is_cut_at_the_start_of_white_space() -> None:
    assert cut_text("one two  \n three", 3) == "one two"
    assert cut_text("one two", 100) == cut_text("one two", 5) == "one two"
    assert cut_text("映画。 映画 a", 2) == "映画。 映画"


@pytest.mark.parametrize(
    "change",
    [
        lambda backend: setattr(backend, "pre_tokenizer", pre_tokenizers.Metaspace()),
        lambda backend: setattr(backend, "pre_tokenizer", pre_tokenizers.ByteLevel(use_regex=False)),
        lambda backend: setattr(backend, "pre_tokenizer", None),
        lambda backend: setattr(backend, "normalizer", normalizers.Replace(" ", "_")),
        lambda backend: setattr(backend.model, "dropout", 0.1),
        lambda backend: backend.add_tokens([AddedToken("New York")]),
    ],
)
def test_other_tokenizers_read_whole_reviews(change) -> None:
    tokenizer = trained_tokenizer("modernbert", 500, TEXTS)
    change(tokenizer.backend_tokenizer)
    assert not cuts_safely(tokenizer)
    encoded = encode(tokenizer, TEXTS, 32, "head")
    if not getattr(tokenizer.backend_tokenizer.model, "dropout", None):
        theirs = tokenizer(TEXTS, truncation=True, padding="max_length", max_length=32)["input_ids"]
        assert encoded.input_ids.tolist() == theirs


def test_where_the_check_fails_whole_reviews_are_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A tokenizer that puts something before long texts, taken for one that reads word by word."""
    tokenizer = trained_tokenizer("modernbert", 500, TEXTS)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex(r"\A.(?=(?m:.{300}))"), "Long: ")
    monkeypatch.setattr(stage, "cuts_safely", lambda tokenizer: True)
    texts = [text * 5 for text in TEXTS]
    with caplog.at_level(logging.WARNING):
        encoded = encode(tokenizer, texts, 32, "head")
    theirs = tokenizer(texts, truncation=True, padding="max_length", max_length=32)["input_ids"]
    assert encoded.input_ids.tolist() == theirs
    assert "whole reviews are tokenised" in caplog.text


def test_threads_change_nothing() -> None:
    """Two threads against none beside that of the test."""
    code = (
        "from batchscope.data.tokenizer import trained_tokenizer\nfrom batchscope.data.encode import encode\n"
        "from batchscope.data.synthetic import synthetic_reviews\nfrom batchscope.data.spec import SyntheticSpec\n"
        "texts = [r.text for r in synthetic_reviews(SyntheticSpec(reviews=60, seed=5, label_noise=0.0))]\n"
        "print(encode(trained_tokenizer('bert', 300, texts), texts, 32, 'head').input_ids.tolist())"
    )
    environment = {"RAYON_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "true"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, check=True, capture_output=True, text=True
    )
    expected = encode(trained_tokenizer("bert", 300, TEXTS), TEXTS, 32, "head").input_ids.tolist()
    assert done.stdout.strip() == str(expected)


def without_letter_a(*, special: bool) -> PreTrainedTokenizerFast:
    """A tokenizer without an unknown token that knows Cyrillic letters alone."""
    backend = Tokenizer(models.BPE({"<p>": 0, "<s>": 1, **{c: n for n, c in enumerate("абвгд", 2)}}, []))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A <s> <s>", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<p>", bos_token="<s>")


@pytest.mark.parametrize("truncation", ["head", "tail", "head_tail"])
def test_a_tokenizer_that_cannot_write_the_letter_a(truncation: Truncation) -> None:
    texts = ["xyz", "ав да", "б" * 20, "a"]
    encoded = encode(without_letter_a(special=True), texts, 8, truncation)
    assert encoded.input_ids[:2].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 2, 4, 6, 2, 1, 1, 0]]
    assert encoded.input_ids[2].tolist() == [1, *[3] * 5, 1, 1]
    assert encoded.truncated.tolist() == [False, False, True, False]


def test_a_text_without_any_token_is_refused() -> None:
    plain = without_letter_a(special=False)
    assert encode(plain, ["ав", "да"], 4, "head").length.tolist() == [2, 2]
    with pytest.raises(UserError, match="no token of the text 'xyz'"):
        encode(plain, ["ав", "xyz"], 4, "head")
    with pytest.raises(UserError, match="no token of 2 of 3 texts, the first of them 'x'"):
        encode(plain, ["x", "y", "ав"], 4, "tail")


def test_special_tokens_alone_where_no_text_gives_a_token(caplog: pytest.LogCaptureFixture) -> None:
    assert encode(without_letter_a(special=True), ["x", "y"], 4, "head").input_ids.tolist() == [[1, 1, 1, 0]] * 2
    assert "2 of 2 texts have no token" in caplog.text
