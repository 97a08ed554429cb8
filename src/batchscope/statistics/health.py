"""Which runs did not learn: the training diverged, or the model predicts one class for every review. Pure."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def constant_prediction(confusion: Sequence[Sequence[int]]) -> int | None:
    """The one class that a model predicts for all examples; None if it predicts several.

    ``confusion`` ``[C, C]`` counts examples by label (row) and prediction (column). Examples that all have one label
    cannot show a collapse: None as well.
    """
    counts = np.asarray(confusion)
    predicted = np.flatnonzero(counts.sum(0))
    labels = np.flatnonzero(counts.sum(1))
    return int(predicted[0]) if len(predicted) == 1 < len(labels) else None


def faulty_runs(results: pd.DataFrame) -> dict[str, str]:
    """Run → why it counts as one that did not learn. ``results`` has one row per cell, as ``tables/results.csv``.

    Diverged: the training loss of the last epoch is above that of guessing, log C. Collapsed: the best or the last
    checkpoint predicts one class for every test review.
    """
    found = {}
    for row in results.to_dict("records"):
        reasons = []
        if not pd.isna(row["constant_prediction"]):
            reasons.append(f"predicts {row['constant_prediction']} for every test review")
        elif not pd.isna(row["constant_prediction_last"]):
            reasons.append(f"predicts {row['constant_prediction_last']} for every test review after its last epoch")
        if row["diverged"]:
            reasons.append("its training loss ended above that of guessing")
        if reasons:
            found[str(row["run"])] = " and ".join(reasons)
    return found
