"""The scores that training needs of a validation: integer counts and one sum, divided once. Pure NumPy."""

import numpy as np
from numpy.typing import NDArray

from batchscope.evaluation.records import Scores


def count(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> Scores:
    """Score logits ``[N, C]`` against labels ``[N]``; the loss is computed in float64.

    The prediction is the class with the largest logit, and the first of several equal ones.
    """
    examples = len(labels)
    correct = int((logits.argmax(1) == labels).sum())
    loss = float(-log_softmax(logits)[np.arange(examples), labels].sum()) / examples
    return {"examples": examples, "correct": correct, "accuracy": correct / examples, "loss": loss}


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-probabilities ``[N, C]`` in float64, shifted by each row's maximum so that nothing overflows."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return normalised
