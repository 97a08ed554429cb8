"""The reviews to draw follow the stated rule, whatever the number of classes, and do not move."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.data.corpus import build_corpus
from batchscope.data.records import ReviewsFile
from batchscope.data.reviews import choose, choose_reviews, fit_baseline, rule_in_words, written_in_words
from batchscope.data.spec import CorpusSpec, ReviewsSpec, SplitSpec, SyntheticSpec
from batchscope.data.split import make_split
from batchscope.data.tables import Corpus, read_corpus, read_split, write_corpus

NAMES = ["confident_correct", "confident_wrong", "undecided"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reviews")
    synthetic = SyntheticSpec(reviews=1000, seed=0, label_noise=0.03)
    build_corpus(CorpusSpec(kind="synthetic", synthetic=synthetic), path / "corpus.parquet")
    divide(path)
    return path


def divide(path: Path) -> None:
    spec = SplitSpec(method="pooled", train=0.6, validation=0.2, test=0.2, seed=1)
    make_split(spec, path / "corpus.parquet", path / "split.parquet")


def chosen(path: Path, texts: list[str]) -> ReviewsFile:
    choose_reviews(
        ReviewsSpec(texts=tuple(texts)), path / "corpus.parquet", path / "split.parquet", path / "reviews.json"
    )
    return json.loads((path / "reviews.json").read_text())


def reference_choice(probability: np.ndarray, label: np.ndarray, pool: list[int]) -> list[int]:
    correct = [row for row in pool if probability[row].argmax() == label[row]]
    wrong = [row for row in pool if row not in correct]
    first = max(correct, key=lambda row: probability[row, label[row]])
    second = min(wrong, key=lambda row: probability[row, label[row]])
    margins = {row: np.diff(np.sort(probability[row])[-2:])[0] for row in pool if row not in (first, second)}
    return [first, second, min(margins, key=lambda row: margins[row])]


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(30, 900))
def test_the_choice_follows_the_rule(seed: int, classes: int, count: int) -> None:
    random = np.random.default_rng(seed)
    probability = random.dirichlet(np.ones(classes), count)
    label, length = random.integers(0, classes, count), random.integers(5, 500, count)
    rows, size = choose(probability, label, length)
    assert list(rows) == NAMES
    pool = sorted(range(count), key=lambda row: (length[row], row))[:size]
    assert list(rows.values()) == reference_choice(probability, label, sorted(pool))


def test_the_pool_is_a_twentieth_and_doubles_until_a_wrong_review_is_in_it() -> None:
    length = np.arange(1000)
    label = np.zeros(1000, dtype=int)
    probability = np.tile([0.9, 0.1], (1000, 1)) + np.linspace(0, 0.05, 1000)[:, None] * [1, -1]
    probability[[10, 500]] = [0.2, 0.8]
    assert choose(probability, label, length)[1] == 50
    probability[10] = [0.9, 0.1]
    rows, size = choose(probability, label, length)
    assert size == 800
    assert rows["confident_wrong"] == 500


def test_a_baseline_without_mistakes_still_gives_three_reviews() -> None:
    probability = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.8, 0.2]])
    rows, size = choose(probability, np.zeros(4, dtype=int), np.arange(4))
    assert size == 4
    assert list(rows.values()) == [0, 1, 2]


def test_the_file_holds_what_the_rule_chose(folder: Path) -> None:
    report = chosen(folder, [])
    corpus, split = read_corpus(folder / "corpus.parquet"), read_split(folder / "split.parquet")
    probability = fit_baseline(corpus, split).probability
    assert [review["name"] for review in report["reviews"]] == NAMES
    for review in report["reviews"]:
        row = split["validation"].tolist().index(review["example_id"])
        assert review["text"] == corpus.texts[review["example_id"]]
        assert review["label"] == corpus.label[review["example_id"]]
        assert review["baseline_probability"] == pytest.approx(probability["validation"][row, review["label"]])
    right, wrong = (review["baseline_probability"] for review in report["reviews"][:2])
    assert wrong < 0.5 < right
    for name in ("validation", "test"):
        correct = (probability[name].argmax(axis=1) == corpus.label[split[name]]).sum()
        assert report["baseline"][f"{name}_correct"] == correct
        assert report["baseline"][f"{name}_examples"] == 200
    assert report == chosen(folder, [])


def test_own_texts_are_kept_in_order_beside_the_baseline(folder: Path) -> None:
    report = chosen(folder, ["one", "two"])
    assert [(review["name"], review["text"]) for review in report["reviews"]] == [("text1", "one"), ("text2", "two")]
    assert {review["example_id"] for review in report["reviews"]} == {None}
    assert report["baseline"] == chosen(folder, [])["baseline"]


def test_several_classes_one_of_them_absent_from_train(tmp_path: Path) -> None:
    words = ["awful", "middling", "lovely"]
    label = np.array([number % 3 for number in range(90)])
    texts = [f"a {words[number]} film number {place}" for place, number in enumerate(label)]
    write_corpus(
        Corpus(pa.chunked_array([texts]), label, np.array(["train"] * 90), ["a", "b", "c"]), tmp_path / "corpus.parquet"
    )
    divide(tmp_path)
    assert [review["name"] for review in chosen(tmp_path, [])["reviews"]] == NAMES
    corpus, split = read_corpus(tmp_path / "corpus.parquet"), read_split(tmp_path / "split.parquet")
    split["train"] = split["train"][corpus.label[split["train"]] != 1]
    probability = fit_baseline(corpus, split).probability["test"]
    assert np.allclose(probability.sum(axis=1), 1)
    assert (probability[:, 1] == 0).all()


def small_corpus(folder: Path, texts: list[str], label: list[int]) -> None:
    corpus = Corpus(pa.chunked_array([texts]), np.array(label), np.array(["train"] * len(texts)), ["a", "b"])
    write_corpus(corpus, folder / "corpus.parquet")
    divide(folder)


@pytest.mark.parametrize(
    ("marks", "fits"),
    [
        (["👎😡", "👍😀"], "TF-IDF of characters + logistic regression"),
        (["👎 😡", "👍 😀"], "TF-IDF of characters + logistic regression"),
        (["这盏灯看起来陈旧，我留下了它", "这盏灯看起来温暖，我推荐它"], "TF-IDF of characters + logistic regression"),
        (["ไม่ดีเลย", "ดีมากๆเลย"], "TF-IDF of characters + logistic regression"),
        (["1 2 3", "4 5 6"], "TF-IDF of characters + logistic regression"),
        (["it is bad", "it is good"], "TF-IDF + logistic regression"),
        (["это плохо", "это хорошо"], "TF-IDF + logistic regression"),
    ],
)
def test_the_baseline_reads_any_script(tmp_path: Path, marks: list[str], fits: str) -> None:
    label = [number % 2 for number in range(60)]
    small_corpus(tmp_path, [marks[each] + "!" * (n % 3) for n, each in enumerate(label)], label)
    baseline = chosen(tmp_path, [])["baseline"]
    assert baseline["name"] == fits
    assert baseline["test_correct"] == baseline["test_examples"] == 12


def test_words_are_what_white_space_divides() -> None:
    assert written_in_words(["Rindfleischetikettierungsgesetz ist kein schönes Wort"] * 3)
    assert not written_in_words(["这盏灯第1号看起来温暖，我再买了它😀"] * 3)
    assert not written_in_words(["👍😀🎉"] * 2 + ["good one"])


def test_the_rule_tells_the_truth() -> None:
    rows = dict(zip(NAMES, (0, 1, 2), strict=True))
    correct = np.arange(90) != 1
    assert rule_in_words("B", 80, correct, rows).startswith("Among the 80 shortest of the 90 validation reviews, by B")
    assert rule_in_words("B", 90, correct, rows).startswith("Among all 90 validation reviews, by B")
    assert rule_in_words("B", 90, correct, rows).endswith("two likeliest classes.")
    assert "labels all of them correctly" in rule_in_words("B", 90, np.ones(90, bool), rows)
    assert "labels none of them correctly" in rule_in_words("B", 90, np.zeros(90, bool), rows)
    alone = dict.fromkeys(NAMES, 0)
    assert rule_in_words("B", 1, np.ones(1, bool), alone).startswith("Of the only validation review, by B")
    assert "more than once" in rule_in_words("B", 1, np.ones(1, bool), alone)


def test_two_dozen_reviews(tmp_path: Path) -> None:
    small_corpus(tmp_path, [f"a {word} film" for word in ("poor", "fine")] * 12, [0, 1] * 12)
    report = chosen(tmp_path, [])
    assert [review["name"] for review in report["reviews"]] == NAMES
    assert {review["title"] for review in report["reviews"]}.isdisjoint({"Misread by a bag of words"})
