"""Metrics of a classifier from its logits: integer counts and sums, divided once. Pure NumPy."""

import numpy as np
from numpy.typing import NDArray

from batchscope.evaluation.counts import count, log_softmax
from batchscope.evaluation.records import Measures

CALIBRATION_BINS = 15


def measure(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> Measures:
    """Metrics of logits ``[N, C]`` against labels ``[N]``, computed in float64.

    Brier score: Brier 1950. Expected calibration error: Guo et al. 2017, arXiv 1706.04599. The prediction is the class
    with the largest logit, and the first of several equal ones.
    """
    scores = count(logits, labels)
    probabilities = np.exp(log_softmax(logits))
    correct = logits.argmax(1) == labels
    truth = np.eye(logits.shape[1])[labels]
    confusion = confusion_matrix(labels, logits.argmax(1), logits.shape[1])
    return {
        **scores,
        "nll": scores["loss"],
        "brier": float(((probabilities - truth) ** 2).sum()) / len(labels),
        "ece": calibration_error(probabilities.max(1), correct),
        "macro_f1": macro_f1(confusion),
        "recall": recalls(confusion),
        "confusion": confusion.tolist(),
    }


def confusion_matrix(labels: NDArray[np.integer], predictions: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """Counts ``[C, C]`` of labels ``[N]`` (rows) and predictions ``[N]`` (columns)."""
    cells = labels.astype(np.int64) * classes + predictions
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def recalls(confusion: NDArray[np.int64]) -> list[float | None]:
    """Share of each class's examples that are predicted as it, from counts ``[C, C]``; None without examples."""
    return [int(row[name]) / int(row.sum()) if row.any() else None for name, row in enumerate(confusion)]


def macro_f1(confusion: NDArray[np.int64]) -> float:
    """Mean over classes of 2·TP / (2·TP + FP + FN), from counts ``[C, C]``.

    A class that is neither label nor prediction of any example has no F1 and does not count.
    """
    hits = confusion.diagonal()
    involved = confusion.sum(0) + confusion.sum(1)
    return float((2 * hits[involved > 0] / involved[involved > 0]).mean())


def calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """Expected calibration error of confidences ``[N]``: Σ over bins |correct − Σ confidence| / N.

    A bin is (lower, upper].
    """
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum()) / len(correct)
