"""Labels that people judged anew: what the votes say, and what they do to accuracies. Pure."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

UNDECIDED = -1
"""In place of a label: no class has more than half of the votes."""


def majority(votes: Mapping[int, int]) -> int:
    """The class with more than half of all votes, else ``UNDECIDED``. Votes for no class count under ``UNDECIDED``."""
    total = sum(votes.values())
    return next((label for label, count in votes.items() if 2 * count > total), UNDECIDED)


def correct_of(predictions: Sequence[NDArray[np.integer]], labels: NDArray[np.integer]) -> tuple[int, int]:
    """Right predictions over the runs, and reviews whose label is decided. Labels ``[N]``, predictions ``[N]`` each."""
    decided = labels != UNDECIDED
    return sum(int((run[decided] == labels[decided]).sum()) for run in predictions), int(decided.sum())


def ranks(accuracies: Sequence[float]) -> list[int]:
    """1 for the highest accuracy; equal ones share the better rank."""
    return [int(rank) for rank in rankdata([-value for value in accuracies], method="min")]
