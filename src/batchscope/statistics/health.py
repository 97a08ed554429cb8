"""Which runs did not learn: the training diverged, or the model predicts one class for every review. Pure."""

from collections.abc import Sequence

import numpy as np


def constant_prediction(confusion: Sequence[Sequence[int]]) -> int | None:
    """The one class that a model predicts for all examples; None if it predicts several.

    ``confusion`` ``[C, C]`` counts examples by label (row) and prediction (column). Examples that all have one label
    cannot show a collapse: None as well.
    """
    counts = np.asarray(confusion)
    predicted = np.flatnonzero(counts.sum(0))
    labels = np.flatnonzero(counts.sum(1))
    return int(predicted[0]) if len(predicted) == 1 < len(labels) else None
