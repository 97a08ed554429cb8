"""Metrics of a classifier from its logits: integer counts and sums, divided once. Pure NumPy."""

from typing import Any

import numpy as np

from batchscope.evaluation.counts import count, log_softmax

CALIBRATION_BINS = 15


def measure(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Metrics of logits ``[N, C]`` against labels ``[N]``, computed in float64.

    ``loss`` is the cross entropy that training minimises; ``nll``, the negative log-likelihood of the true class,
    equals it as long as training smooths no labels. ``brier`` sums the squared error over the classes (Brier
    1950). ``ece`` is the expected calibration error over 15 equal bins of confidence (Guo et al. 2017, arXiv
    1706.04599). The first of several equal largest logits counts as the prediction.
    """
    scores = count(logits, labels)
    probabilities = np.exp(log_softmax(logits))
    correct = logits.argmax(1) == labels
    truth = np.eye(logits.shape[1])[labels]
    return scores | {
        "nll": scores["loss"],
        "brier": float(((probabilities - truth) ** 2).sum()) / len(labels),
        "ece": calibration_error(probabilities.max(1), correct),
    }


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error: Σ over bins |correct − Σ confidence| / N; a bin is (lower, upper]."""
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum()) / len(correct)
