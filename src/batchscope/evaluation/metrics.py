"""Metrics of a classifier from its logits: integer counts and sums, divided once. Pure NumPy."""

from typing import Any

import numpy as np

CALIBRATION_BINS = 15


def measure(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Metrics of logits ``[N, C]`` against labels ``[N]``, computed in float64.

    ``loss`` is the cross entropy that training minimises; ``nll``, the negative log-likelihood of the true class,
    equals it as long as training smooths no labels. ``brier`` sums the squared error over the classes (Brier
    1950). ``ece`` is the expected calibration error over 15 equal bins of confidence (Guo et al. 2017, arXiv
    1706.04599). The first of several equal largest logits counts as the prediction.
    """
    examples = len(labels)
    log_probabilities = log_softmax(logits)
    probabilities = np.exp(log_probabilities)
    correct = logits.argmax(1) == labels
    truth = np.eye(logits.shape[1])[labels]
    nll = float(-log_probabilities[np.arange(examples), labels].sum()) / examples
    return {
        "examples": examples,
        "correct": int(correct.sum()),
        "accuracy": int(correct.sum()) / examples,
        "loss": nll,
        "nll": nll,
        "brier": float(((probabilities - truth) ** 2).sum()) / examples,
        "ece": calibration_error(probabilities.max(1), correct),
    }


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities ``[N, C]`` in float64, shifted by each row's maximum so that nothing overflows."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error: Σ over bins |correct − Σ confidence| / N; a bin is (lower, upper]."""
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum()) / len(correct)
