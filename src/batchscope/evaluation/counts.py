"""What training needs to know of a validation: integer counts and one sum, divided once. Pure NumPy."""

from typing import Any

import numpy as np


def count(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Examples, correct ones, accuracy and loss (mean cross entropy, float64) of logits ``[N, C]``, labels ``[N]``.

    The first of several equal largest logits counts as the prediction.
    """
    examples = len(labels)
    correct = int((logits.argmax(1) == labels).sum())
    loss = float(-log_softmax(logits)[np.arange(examples), labels].sum()) / examples
    return {"examples": examples, "correct": correct, "accuracy": correct / examples, "loss": loss}


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities ``[N, C]`` in float64, shifted by each row's maximum so that nothing overflows."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
