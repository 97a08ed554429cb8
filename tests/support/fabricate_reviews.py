"""Corpus, tokenizer and test tokens of a fabricated study: real files, whose labels are those of its predictions."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fabricate_data import TEXT
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from batchscope.data.tables import Corpus, write_corpus
from batchscope.data.tokens import Tokens, write_tokens
from batchscope.insight.reading import kept

WORDS = TEXT.split()
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def tokenizer() -> Tokenizer:
    """One token a word, between [CLS] and [SEP]."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *dict.fromkeys(WORDS)])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    )
    return made


def text_of(number: int) -> str:
    """A text of 5 to 44 words, no two alike."""
    words = [WORDS[(number * 7 + place) % len(WORDS)] for place in range(4 + number % 40)]
    return f"{' '.join(words)} <b>{number}</b>"


def write_test_reviews(
    folder: Path, model_names: Iterable[str], run: str, classes: list[str], room: int = 24, truncation: str = "head"
) -> None:
    """Write ``data/corpus.parquet`` and the tokenizer and test tokens of every model, for the reviews of ``run``."""
    rows = pq.read_table(
        folder / "runs" / run / "predictions.parquet", filters=[("split", "==", "test"), ("checkpoint", "==", "best")]
    )
    example = rows["example_id"].to_numpy()
    labels = np.zeros(example.max() + 1, np.int64)
    labels[example] = rows["label"].to_numpy()
    texts = [text_of(number) for number in range(len(labels))]
    origin = np.array(["train"] * len(labels))
    write_corpus(Corpus(pa.chunked_array([texts]), labels, origin, classes), folder / "data/corpus.parquet")
    words = tokenizer()
    order = np.sort(example)[::-1]
    ids, length, cut = np.zeros((len(order), room + 2), np.uint16), np.zeros(len(order), np.int32), []
    for row, number in enumerate(order):
        content = words.encode(texts[number], add_special_tokens=False).ids
        head, tail = kept(len(content), room, truncation)
        read = [2, *content[:head], *content[len(content) - tail :], 3]
        ids[row, : len(read)], length[row] = read, len(read)
        cut.append(len(content) > room)
    tokens = Tokens(order, labels[order], ids, length, np.array(cut), classes, 0, words.get_vocab_size())
    for model in model_names:
        (folder / f"tokens/{model}/tokenizer").mkdir(parents=True, exist_ok=True)
        words.save(str(folder / f"tokens/{model}/tokenizer/tokenizer.json"))
        write_tokens(tokens, folder / f"tokens/{model}/test.arrow")
