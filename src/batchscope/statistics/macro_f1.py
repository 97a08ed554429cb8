"""Macro-F1 with the machinery of accuracy: its pseudo-values by the jackknife over reviews, in closed form. Pure."""

import numpy as np
from numpy.typing import NDArray

from batchscope.evaluation.metrics import confusion_matrix, macro_f1


def pseudo_values(
    labels: NDArray[np.integer], predictions: NDArray[np.integer], classes: int
) -> tuple[float, NDArray[np.float64]]:
    """Macro-F1 of ``predictions`` ``[N]`` and its jackknife pseudo-values ``[N]``: N·θ − (N − 1)·θ without review i.

    The covariance of pseudo-values over N is the jackknife's covariance (Efron and Stein 1981), which Obuchowski and
    Rockette 1995 use for any metric. What a review takes away depends on its label and its prediction alone, so C²
    confusion matrices are enough for all N.
    """
    counts = confusion_matrix(labels, predictions, classes)
    n, value = len(labels), macro_f1(counts)
    without = np.full((classes, classes), np.nan)
    for label, prediction in zip(*np.nonzero(counts), strict=True):
        counts[label, prediction] -= 1
        without[label, prediction] = macro_f1(counts)
        counts[label, prediction] += 1
    return value, n * value - (n - 1) * without[labels, predictions]
