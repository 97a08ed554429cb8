"""The reviews whose attention maps are drawn, the same for every run, and the bag-of-words baseline that chooses them.

The baseline is a logistic regression on TF-IDF, trained on the train split: it depends on no run, so that adding a
model or a batch size redraws no map for another review.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from batchscope.data.tables import Corpus, read_corpus, read_split
from batchscope.files import write_json

RULE = (
    "Among the shortest twentieth of the validation reviews (the shortest {pool} of {total}), by a TF-IDF logistic "
    "regression trained on the train split: the correct one with the highest probability of its class, the wrong one "
    "with the lowest probability of its class, and the one with the smallest margin between its two likeliest classes."
)
OWN_RULE = "Texts given in the config."
BASELINE = "TF-IDF + logistic regression"
SMALLEST_POOL = 20


def choose_reviews(spec: dict[str, Any], corpus: Path, split: Path, output: Path) -> None:
    """Write ``data/reviews.json``: the texts of ``spec["texts"]``, or three validation reviews chosen by the baseline.

    The baseline's counts on validation and test are recorded in both cases. The choice is among the shortest
    twentieth of the validation reviews, at least 20; the pool doubles while it holds no wrong, no correct or no third
    review. Where the baseline makes no mistake at all, the least certain reviews take the places.
    """
    reviews, ids = read_corpus(corpus), read_split(split)
    probability = baseline_probabilities(reviews, ids)
    labels = {name: reviews.label[ids[name]] for name in probability}
    baseline: dict[str, Any] = {"name": BASELINE}
    for name, values in probability.items():
        baseline[f"{name}_correct"] = int((values.argmax(axis=1) == labels[name]).sum())
        baseline[f"{name}_examples"] = len(values)
    if spec["texts"]:
        rule, chosen = OWN_RULE, [_own(number, text) for number, text in enumerate(spec["texts"], 1)]
    else:
        lengths = np.array([len(text.split()) for text in reviews.texts_of(ids["validation"])])
        rows, pool = choose(probability["validation"], labels["validation"], lengths)
        rule = RULE.format(pool=pool, total=len(lengths))
        chosen = [
            _chosen(name, reviews, int(ids["validation"][row]), probability["validation"][row])
            for name, row in rows.items()
        ]
    write_json(output, {"rule": rule, "baseline": baseline, "reviews": chosen})


def baseline_probabilities(corpus: Corpus, split: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[np.float64]]:
    """Class probabilities [N, C] of the baseline for ``validation`` and ``test``, in split order.

    A class without a training review gets probability 0.
    """
    vectorizer = TfidfVectorizer(sublinear_tf=True, max_features=50_000)
    features = vectorizer.fit_transform(corpus.texts_of(split["train"]))
    classifier = LogisticRegression(max_iter=1000).fit(features, corpus.label[split["train"]])
    probabilities = {}
    for name in ("validation", "test"):
        probability = np.zeros((len(split[name]), len(corpus.classes)))
        probability[:, classifier.classes_] = classifier.predict_proba(
            vectorizer.transform(corpus.texts_of(split[name]))
        )
        probabilities[name] = probability
    return probabilities


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


def _own(number: int, text: str) -> dict[str, Any]:
    return {
        "name": f"text{number}",
        "title": f"Own text {number}",
        "text": text,
        "example_id": None,
        "label": None,
        "baseline_probability": None,
    }


def _chosen(name: str, corpus: Corpus, example_id: int, probability: NDArray[np.float64]) -> dict[str, Any]:
    label = int(corpus.label[example_id])
    titles = {
        "confident_correct": "Easy for a bag of words",
        "confident_wrong": "Misread by a bag of words",
        "undecided": "Undecided for a bag of words",
    }
    return {
        "name": name,
        "title": titles[name],
        "text": corpus.text[example_id].as_py(),
        "example_id": example_id,
        "label": label,
        "baseline_probability": float(probability[label]),
    }
