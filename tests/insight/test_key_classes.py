"""Every entry of a vocabulary has its kind, for word pieces and for byte-level tokens."""

import pytest
from transformers import PreTrainedTokenizerFast

from batchscope.insight.key_classes import KEY_CLASSES, key_classes


def kinds(tokenizer: PreTrainedTokenizerFast, text: str) -> list[tuple[str, str]]:
    ids, found = tokenizer(text)["input_ids"], key_classes(tokenizer)
    return [(tokenizer.decode([i]).strip(), KEY_CLASSES[found[i]]) for i in ids]


def test_word_pieces_of_bert(minilm) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(minilm)
    assert kinds(tokenizer, "The film, it's unwatchably 90s!") == [
        ("[CLS]", "cls"), ("the", "function"), ("film", "content"), (",", "punctuation"), ("it", "function"),
        ("'", "punctuation"), ("s", "function"), ("un", "content"), ("##watch", "rest"), ("##ably", "rest"),
        ("90s", "content"), ("!", "punctuation"), ("[SEP]", "sep"),
    ]  # fmt: skip
    assert KEY_CLASSES[key_classes(tokenizer)[tokenizer.unk_token_id]] == "rest"


@pytest.mark.parametrize("model", ["bert", "modernbert"])
def test_tokenizers_from_scratch(small_study, model: str) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(small_study.tokens(model) / "tokenizer")
    found = dict(kinds(tokenizer, "and the film , zq"))
    assert (found["the"], found[","]) == ("function", "punctuation")
    assert set(found.values()) == set(KEY_CLASSES)
    first, *_, last = kinds(tokenizer, "the film")
    assert (first[1], last[1]) == ("cls", "sep")
    assert len(key_classes(tokenizer)) == len(tokenizer)
