"""The reviews whose attention maps are drawn, the same for every run, and the bag-of-words baseline that chooses them.

The baseline is a logistic regression on TF-IDF, trained on the train split: it depends on no run, so that adding a
model or a batch size redraws no map for another review.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from batchscope.data.records import Baseline, ReviewsFile, ShownReview, SplitName
from batchscope.data.spec import ReviewsSpec
from batchscope.data.tables import Corpus, read_corpus, read_split
from batchscope.files import write_json

RULE = (
    "{pool}, by {baseline} trained on the train split: the correct one with the highest probability of its class, the "
    "wrong one with the lowest probability of its class, and the one with the smallest margin between its two "
    "likeliest classes."
)
ALL_CORRECT = " It labels all of them correctly, so the second is that with the next lowest probability of its class."
NONE_CORRECT = " It labels none of them correctly, so the first is the one with the highest probability of its class."
WORD = re.compile(r"\w\w")
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese characters."""
TOO_FEW = " There are fewer than three of them, so one is shown more than once."
OWN_RULE = "Texts given in the config."
WORDS = "TF-IDF + logistic regression"
CHARACTERS = "TF-IDF of characters + logistic regression"
SMALLEST_POOL = 20
TITLES = {
    ("confident_correct", True): "Easy for a bag of words",
    ("confident_correct", False): "Least misread by a bag of words",
    ("confident_wrong", False): "Misread by a bag of words",
    ("confident_wrong", True): "Hard for a bag of words",
    ("undecided", True): "Undecided for a bag of words",
    ("undecided", False): "Undecided for a bag of words",
}
"""(name, whether the baseline labels the review correctly) → heading."""


class FittedBaseline(NamedTuple):
    """The baseline and what it says about the held-out reviews."""

    name: str
    """What it is, in words."""
    probability: dict[SplitName, NDArray[np.float64]]
    """``validation`` and ``test`` → class probabilities [N, C], in split order."""


def choose_reviews(spec: ReviewsSpec, corpus: Path, split: Path, output: Path) -> None:
    """Write ``data/reviews.json``: the texts of ``spec.texts``, or three validation reviews chosen by the baseline.

    The baseline's counts on validation and test are recorded in both cases. The choice is among the shortest
    twentieth of the validation reviews, at least 20; the pool doubles while it holds no wrong, no correct or no third
    review. Where the baseline makes no mistake at all, the least certain reviews take the places.
    """
    reviews, ids = read_corpus(corpus), read_split(split)
    baseline = fit_baseline(reviews, ids)
    label = {name: reviews.label[ids[name]] for name in baseline.probability}
    if spec.texts:
        rule, chosen = OWN_RULE, [_own(number, text) for number, text in enumerate(spec.texts, 1)]
    else:
        validation, probability = ids["validation"], baseline.probability["validation"]
        lengths = np.array([len(text.split()) for text in reviews.texts_of(validation)])
        rows, pool = choose(probability, label["validation"], lengths)
        correct = probability.argmax(axis=1) == label["validation"]
        rule = rule_in_words(baseline.name, pool, correct, rows)
        chosen = [
            _chosen(TITLES[name, bool(correct[row])], name, reviews, int(validation[row]), probability[row])
            for name, row in rows.items()
        ]
    write_json(output, ReviewsFile(rule=rule, baseline=baseline_counts(baseline, label), reviews=chosen))


def rule_in_words(baseline: str, pool: int, correct: NDArray[np.bool_], rows: dict[str, int]) -> str:
    """How ``rows`` were chosen: from the ``pool`` shortest reviews, ``correct`` [N] of all being labelled correctly."""
    total = len(correct)
    reviews = "validation review" + ("" if total == 1 else "s")
    among = f"Among the {pool:,} shortest of the {total:,} {reviews}"
    if pool == total:
        among = f"Of the only {reviews}" if total == 1 else f"Among all {total:,} {reviews}"
    rule = RULE.format(pool=among, baseline=baseline)
    if len(set(rows.values())) < len(rows):
        return rule + TOO_FEW
    if correct[rows["confident_wrong"]]:
        return rule + ALL_CORRECT
    return rule if correct[rows["confident_correct"]] else rule + NONE_CORRECT


def baseline_counts(baseline: FittedBaseline, label: dict[SplitName, NDArray[np.int64]]) -> Baseline:
    """How many reviews of validation and test the baseline labels correctly. ``label`` [N] by split."""
    correct = {
        name: int((probability.argmax(axis=1) == label[name]).sum())
        for name, probability in baseline.probability.items()
    }
    return {
        "name": baseline.name,
        "validation_correct": correct["validation"],
        "validation_examples": len(label["validation"]),
        "test_correct": correct["test"],
        "test_examples": len(label["test"]),
    }


def fit_baseline(corpus: Corpus, split: dict[SplitName, NDArray[np.int64]]) -> FittedBaseline:
    """Trains the baseline on the train split. A class without a training review gets probability 0."""
    texts = corpus.texts_of(split["train"])
    in_words = written_in_words(texts)
    vectorizer = (
        TfidfVectorizer(sublinear_tf=True, max_features=50_000)
        if in_words
        else TfidfVectorizer(sublinear_tf=True, max_features=50_000, analyzer="char", ngram_range=(1, 2))
    )
    classifier = LogisticRegression(max_iter=1000).fit(vectorizer.fit_transform(texts), corpus.label[split["train"]])
    probabilities: dict[SplitName, NDArray[np.float64]] = {}
    held_out: tuple[SplitName, ...] = ("validation", "test")
    for name in held_out:
        probability = np.zeros((len(split[name]), len(corpus.classes)))
        probability[:, classifier.classes_] = classifier.predict_proba(
            vectorizer.transform(corpus.texts_of(split[name]))
        )
        probabilities[name] = probability
    return FittedBaseline(WORDS if in_words else CHARACTERS, probabilities)


def written_in_words(texts: list[str]) -> bool:
    """Whether white space divides these texts into words of at least two letters, as in English but not in Chinese.

    Half of the texts at least have such a word, and at most half of the characters are of a script without spaces.
    """
    with_words = sum(WORD.search(text) is not None for text in texts)
    unspaced = sum(len(UNSPACED.findall(text)) for text in texts)
    return 2 * with_words >= len(texts) and 2 * unspaced <= sum(len(text) for text in texts)


def choose(
    probability: NDArray[np.float64], label: NDArray[np.int64], length: NDArray[np.int64]
) -> tuple[dict[str, int], int]:
    """Row of each review to show, and the size of the pool they were chosen from.

    ``probability`` [N, C], ``label`` [N], ``length`` [N] in words; ties go to the earlier row. The three are
    different reviews wherever N is at least 3.
    """
    by_length = np.argsort(length, kind="stable")
    correct = probability.argmax(axis=1) == label
    size = min(max(SMALLEST_POOL, len(label) // 20), len(label))
    while size < len(label) and (correct[by_length[:size]].all() or not correct[by_length[:size]].any()):
        size = min(2 * size, len(label))
    pool = np.sort(by_length[:size])
    true = probability[pool, label[pool]]
    top = np.sort(probability[pool], axis=1)
    margin = top[:, -1] - top[:, -2]
    keys = {
        "confident_correct": np.where(correct[pool], -true, 2 - true),
        "confident_wrong": np.where(correct[pool], 2 + true, true),
        "undecided": margin.copy(),
    }
    rows: dict[str, int] = {}
    for name, key in keys.items():
        free = ~np.isin(pool, list(rows.values()))
        best = int(np.argmin(np.where(free, key, np.inf)))
        rows[name] = int(pool[best])
    return rows, size


def _own(number: int, text: str) -> ShownReview:
    return {
        "name": f"text{number}",
        "title": f"Own text {number}",
        "text": text,
        "example_id": None,
        "label": None,
        "baseline_probability": None,
    }


def _chosen(title: str, name: str, corpus: Corpus, example_id: int, probability: NDArray[np.float64]) -> ShownReview:
    label = int(corpus.label[example_id])
    return {
        "name": name,
        "title": title,
        "text": corpus.text[example_id].as_py(),
        "example_id": example_id,
        "label": label,
        "baseline_probability": float(probability[label]),
    }
