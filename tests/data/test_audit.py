"""The audit's counts are those of a slow count, on made-up and on the real reviews."""

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from batchscope.data.audit import audit
from batchscope.data.corpus import build_corpus
from batchscope.data.records import SourceRecord
from batchscope.data.spec import CorpusSpec, SplitSpec, TokensSpec, Truncation
from batchscope.data.split import make_split
from batchscope.data.tables import SPLITS, Corpus, read_corpus, read_split, write_corpus, write_split
from batchscope.data.tokenize import tokenize
from batchscope.model.spec import ModelSpec


def tokens_spec(vocabulary_size: int, max_length: int, truncation: Truncation) -> TokensSpec:
    model = ModelSpec(architecture="bert", vocabulary_size=vocabulary_size)
    return TokensSpec(model=model, max_length=max_length, truncation=truncation)


def reference_redundant(texts: list[str]) -> int:
    return sum(count - 1 for count in Counter(texts).values())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(1)
    words = ["good", "bad", "film", "plot", "cast"]
    texts = [" ".join(random.choice(words, random.integers(1, 4))) for _ in range(200)]
    corpus = Corpus(
        pa.chunked_array([texts]),
        random.integers(0, 3, 200),
        np.array(["train"] * 150 + ["test"] * 50),
        ["neg", "neutral", "pos"],
    )
    write_corpus(corpus, tmp_path / "corpus.parquet")
    write_split(
        dict(zip(SPLITS, np.split(random.permutation(200), [120, 160]), strict=True)), tmp_path / "split.parquet"
    )
    return tmp_path


def test_counts_equal_a_slow_count(folder: Path) -> None:
    corpus, split = folder / "corpus.parquet", folder / "split.parquet"
    spec = tokens_spec(vocabulary_size=64, max_length=8, truncation="tail")
    tokenize(spec, corpus, split, folder / "tiny")
    audit(corpus, split, {"tiny": folder / "tiny"}, folder / "audit.json")
    report = json.loads((folder / "audit.json").read_text())

    reviews, ids = read_corpus(corpus), read_split(split)
    texts = {name: [reviews.texts[n] for n in ids[name]] for name in SPLITS}
    labels_of: dict[str, list[int]] = {}
    for text, label in zip(reviews.texts, reviews.label.tolist(), strict=True):
        labels_of.setdefault(text, []).append(label)
    conflicting = [labels for labels in labels_of.values() if len(set(labels)) > 1]
    found = report["duplicates"]
    assert found["groups"] == sum(len(labels) > 1 for labels in labels_of.values())
    assert found["redundant"] == reference_redundant(reviews.texts)
    assert found["conflicting_groups"] == len(conflicting)
    assert found["conflicting_reviews"] == sum(map(len, conflicting))
    assert found["within_origin"] == {
        "train": reference_redundant(reviews.texts[:150]),
        "test": reference_redundant(reviews.texts[150:]),
    }
    assert found["within_split"] == {name: reference_redundant(texts[name]) for name in SPLITS}
    assert len(found["crossing"]) == 6
    for pair in found["crossing"]:
        there = set(texts[pair["other"]])
        count = sum(text in there for text in texts[pair["split"]])
        assert (pair["reviews"], pair["share"]) == (count, count / len(texts[pair["split"]]))

    for name in SPLITS:
        part = report["splits"][name]
        assert part["reviews"] == len(texts[name]) == sum(part["per_class"].values())
        assert list(part["per_class"].values()) == [int((reviews.label[ids[name]] == n).sum()) for n in range(3)]
        lengths = [len(text.split()) for text in texts[name]]
        assert part["words"]["mean"] == pytest.approx(sum(lengths) / len(lengths))
        assert (part["words"]["minimum"], part["words"]["maximum"]) == (min(lengths), max(lengths))


def test_what_was_left_out_of_the_source_is_in_the_audit(folder: Path) -> None:
    source: SourceRecord = {
        "read": [{"name": "train.csv", "origin": "train", "reviews": 200}],
        "left_out": [{"name": ".DS_Store", "reason": "it is hidden"}],
    }
    corpus = folder / "corpus.parquet"
    write_corpus(replace(read_corpus(corpus), source=source), corpus)
    audit(corpus, folder / "split.parquet", {}, folder / "audit.json")
    assert json.loads((folder / "audit.json").read_text())["source"] == source


def test_truncation_and_padding_are_counted_in_tokens(folder: Path) -> None:
    corpus, split = folder / "corpus.parquet", folder / "split.parquet"
    spec = tokens_spec(vocabulary_size=200, max_length=4, truncation="head")
    tokenize(spec, corpus, split, folder / "tiny")
    audit(corpus, split, {"tiny": folder / "tiny"}, folder / "audit.json")
    part = json.loads((folder / "audit.json").read_text())["tokens"]["tiny"]["splits"]["train"]
    words = [len(read_corpus(corpus).texts[n].split()) for n in read_split(split)["train"]]
    assert part["length"]["maximum"] == min(max(words) + 2, 4)
    assert part["truncated"] == sum(count + 2 > 4 for count in words)
    assert part["padding"] == sum(max(0, 4 - count - 2) for count in words)
    assert part["padding_share"] == part["padding"] / (120 * 4)


@pytest.mark.skipif("BATCHSCOPE_IMDB" not in os.environ, reason="BATCHSCOPE_IMDB names no folder of the IMDB files")
def test_the_real_reviews(tmp_path: Path) -> None:
    corpus, split = tmp_path / "corpus.parquet", tmp_path / "split.parquet"
    source = os.environ["BATCHSCOPE_IMDB"]
    build_corpus(CorpusSpec(kind="local", source=source, text="text", label="label"), corpus)
    make_split(SplitSpec(method="official", train=0.9, validation=0.05, test=0.05, seed=42), corpus, split)
    audit(corpus, split, {}, tmp_path / "audit.json")
    report = json.loads((tmp_path / "audit.json").read_text())
    assert report["reviews"] == 50_000
    assert report["splits"]["test"]["per_class"] == {"0": 12_500, "1": 12_500}
    assert report["duplicates"]["within_origin"] == {"train": 96, "test": 199}
    assert report["duplicates"]["conflicting_groups"] == 0
