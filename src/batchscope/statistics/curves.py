"""Curves of a training: running means in which every example counts alike. Pure."""

import numpy as np
import pandas as pd


def running_mean(updates: pd.DataFrame, samples: int) -> pd.DataFrame:
    """Accuracy and loss over the latest updates that hold at least ``samples`` examples, from the first full one on.

    Takes and returns rows in update order with ``update, samples, accuracy, loss``. Sums are divided once, so every
    example counts alike whatever the window it was in.
    """
    seen = np.concatenate([[0], updates.examples.to_numpy().cumsum()])
    correct = np.concatenate([[0], updates.correct.to_numpy().cumsum()])
    loss = np.concatenate([[0.0], (updates.loss * updates.examples).to_numpy().cumsum()])
    span = min(samples, int(seen[-1]))
    ends = np.flatnonzero(seen >= span)
    starts = np.searchsorted(seen, seen[ends] - span, side="right") - 1
    return pd.DataFrame(
        {
            "update": updates["update"].to_numpy()[ends - 1],
            "samples": updates.samples.to_numpy()[ends - 1],
            "accuracy": (correct[ends] - correct[starts]) / (seen[ends] - seen[starts]),
            "loss": (loss[ends] - loss[starts]) / (seen[ends] - seen[starts]),
        }
    )
