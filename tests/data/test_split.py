"""Splits are disjoint, complete, and `pooled` is the reference study's."""

import os
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchscope.config.schema import Data
from batchscope.data.corpus import build_corpus
from batchscope.data.shares import pooled_sizes
from batchscope.data.spec import CorpusSpec, SplitSpec
from batchscope.data.split import make_split
from batchscope.data.tables import SPLITS, Corpus, read_corpus, read_split, write_corpus
from batchscope.errors import UserError

SPEC = SplitSpec(method="pooled", train=0.8, validation=0.1, test=0.1, seed=42)


def corpus(path: Path, **origins: int) -> Path:
    count = sum(origins.values())
    write_corpus(
        Corpus(
            pa.chunked_array([[f"review {n}" for n in range(count)]], pa.string()),
            np.arange(count) % 2,
            np.repeat(list(origins), list(origins.values())),
            ["neg", "pos"],
        ),
        path / "corpus.parquet",
    )
    return path / "corpus.parquet"


def divide(source: Path, **keys: object) -> dict[str, np.ndarray]:
    make_split(SplitSpec.read(SPEC.plain() | keys), source, source.with_name("split.parquet"))
    return read_split(source.with_name("split.parquet"))


def reference_split(count: int) -> dict[str, list[int]]:
    """The reference study's own recipe, word for word."""
    rows = datasets.Dataset.from_dict({"row": list(range(count))})
    first = rows.train_test_split(test_size=0.2, seed=42)
    second = first["test"].train_test_split(test_size=0.5, seed=42)
    halves = {"train": first["train"], "validation": second["train"], "test": second["test"]}
    return {name: half["row"][:] for name, half in halves.items()}


@pytest.mark.parametrize("count", [50_000, 4_999, 30])
def test_pooled_is_the_reference_recipe(tmp_path: Path, count: int) -> None:
    split = divide(corpus(tmp_path, train=count))
    assert {name: ids.tolist() for name, ids in split.items()} == reference_split(count)
    assert pooled_sizes(count, SPEC.validation, SPEC.test) == tuple(len(split[name]) for name in SPLITS)


@pytest.mark.parametrize(
    ("shares", "sizes"),
    [((0.7, 0.1, 0.2), (700, 100, 200)), ((0.6, 0.3, 0.1), (600, 300, 100)), ((0.85, 0.07, 0.08), (850, 70, 80))],
)
def test_shares_are_met_exactly_whatever_the_floats_do(tmp_path: Path, shares: tuple, sizes: tuple) -> None:
    split = divide(corpus(tmp_path, train=1000), **dict(zip(SPLITS, shares, strict=True)))
    assert tuple(len(split[name]) for name in SPLITS) == sizes
    assert pooled_sizes(sum(sizes), shares[1], shares[2]) == sizes, "what a plan expects is what is drawn"


@pytest.mark.parametrize("method", ["pooled", "official"])
def test_every_review_stands_in_one_split(tmp_path: Path, method: str) -> None:
    split = divide(corpus(tmp_path, train=500, test=300), method=method)
    assert sorted(np.concatenate(list(split.values())).tolist()) == list(range(800))


@pytest.mark.parametrize("method", ["pooled", "official"])
def test_the_seed_draws(tmp_path: Path, method: str) -> None:
    source = corpus(tmp_path, train=100, test=20)
    drawn = [divide(source, method=method, seed=seed)["validation"].tolist() for seed in (42, 42, 43)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_official_keeps_the_test_set_and_draws_validation_from_train(tmp_path: Path) -> None:
    split = divide(corpus(tmp_path, train=900, test=300), method="official")
    assert split["test"].tolist() == list(range(900, 1200))
    assert len(split["validation"]) == 100
    assert split["validation"].max() < 900


def test_official_keeps_a_validation_set(tmp_path: Path) -> None:
    split = divide(corpus(tmp_path, train=90, validation=20, test=30), method="official")
    assert split["train"].tolist() == list(range(90))
    assert split["validation"].tolist() == list(range(90, 110))
    assert split["test"].tolist() == list(range(110, 140))


@pytest.mark.parametrize(("there", "missing"), [("train", "test"), ("test", "train")])
def test_official_needs_a_train_and_a_test_set(tmp_path: Path, there: str, missing: str) -> None:
    with pytest.raises(UserError, match=rf"data\.split\.method: `official` needs a source with a {missing} set"):
        divide(corpus(tmp_path, **{there: 100}), method="official")


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("method", ["pooled", "official"])
def test_too_few_reviews_are_refused(tmp_path: Path, count: int, method: str) -> None:
    origins = {"train": count} if method == "pooled" else {"train": 1, "test": count - 1}
    with pytest.raises(UserError, match=rf"data\.split: {count} reviews are too few for shares of 0.8, 0.1 and 0.1"):
        divide(corpus(tmp_path, **origins), method=method)


def test_one_review_is_singular(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.split: 1 review is too few for shares"):
        divide(corpus(tmp_path, train=1))


def test_fourteen_reviews_for_training_are_enough(tmp_path: Path) -> None:
    sizes = {name: len(ids) for name, ids in divide(corpus(tmp_path, train=18)).items()}
    assert sizes == {"train": 14, "validation": 2, "test": 2}
    with pytest.raises(UserError, match="the train split has 13 reviews, a study needs 14"):
        divide(corpus(tmp_path, train=17))


@given(count=st.integers(40, 400), held_out=st.lists(st.integers(5, 30), min_size=2, max_size=2))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_config_knows_how_many_reviews_are_for_training(tmp_path: Path, count: int, held_out: list[int]) -> None:
    """Before there is a corpus; exactly as many as the split then has."""
    shares = {name: share / 100 for name, share in zip(("validation", "test"), held_out, strict=True)}
    shares["train"] = (100 - sum(held_out)) / 100
    known = Data(source="synthetic", synthetic={"reviews": count}, split=shares).known_training_reviews
    assert known is not None
    if known >= 14:
        assert len(divide(corpus(tmp_path, train=count), **shares)["train"]) == known


@pytest.mark.parametrize(("absent", "rest"), [(8, ""), (11, " and 3 more classes")])
def test_eight_classes_that_a_split_lacks_are_named_and_the_others_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, absent: int, rest: str
) -> None:
    source = corpus(tmp_path, train=40)
    plain = read_corpus(source)
    write_corpus(replace(plain, classes=[*plain.classes, *(f"c{number}" for number in range(absent))]), source)
    divide(source, train=0.5, validation=0.25, test=0.25)
    named = ", ".join(f"'c{number}'" for number in range(8))
    assert f"data.split: the train split has no review of {named}{rest}" in [each.message for each in caplog.records]


def test_a_class_that_a_split_lacks_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    divide(corpus(tmp_path, train=20), train=0.9, validation=0.05, test=0.05)
    assert caplog.text.count("split has no review of") == 2
    assert "the test split has no review of 'pos'" in caplog.text or "no review of 'neg'" in caplog.text


def test_a_train_split_of_one_class_is_refused(tmp_path: Path) -> None:
    source = corpus(tmp_path, train=90, test=10)
    write_corpus(replace(read_corpus(source), label=np.repeat([0, 1], [90, 10])), source)
    with pytest.raises(UserError, match="all 80 reviews of the train split are of class 'neg'"):
        divide(source, method="official")


def test_a_damaged_corpus_is_named(tmp_path: Path) -> None:
    source = corpus(tmp_path, train=100)
    source.write_bytes(source.read_bytes()[:200])
    with pytest.raises(UserError, match=r"corpus\.parquet"):
        divide(source)


@pytest.mark.skipif("BATCHSCOPE_IMDB" not in os.environ, reason="BATCHSCOPE_IMDB names no folder of the IMDB files")
def test_the_real_reviews_are_divided_as_in_the_reference_study(tmp_path: Path) -> None:
    source, folder = tmp_path / "corpus.parquet", os.environ["BATCHSCOPE_IMDB"]
    build_corpus(CorpusSpec(kind="local", source=folder, text="text", label="label"), source)
    split = divide(source)
    assert {name: len(ids) for name, ids in split.items()} == {"train": 40_000, "validation": 5_000, "test": 5_000}
    files = [str(Path(folder) / f"{name}.parquet") for name in ("train", "test")]
    given = datasets.concatenate_datasets(
        [datasets.Dataset.from_parquet(file, cache_dir=str(tmp_path / "cache")) for file in files]
    )
    first = given.train_test_split(test_size=0.2, seed=42)
    second = first["test"].train_test_split(test_size=0.5, seed=42)
    texts = datasets.Dataset.from_parquet(str(source), cache_dir=str(tmp_path / "cache"))
    for name, half in [("train", first["train"]), ("validation", second["train"]), ("test", second["test"])]:
        assert texts.select(split[name])["text"][:] == half["text"][:]
