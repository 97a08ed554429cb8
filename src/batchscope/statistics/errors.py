"""Which reviews are got wrong, by how much, and whether the batch size or the seed decides. Pure.

Logits are ``[N, C]`` and labels ``[N]``, with the N reviews in one order for all runs.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchscope.statistics.divergence import Pair

Verdict = Literal["always", "sometimes", "never"]
LENGTH_GROUPS = 4


class RunOfReviews(NamedTuple):
    """What one run makes of the N reviews."""

    batch: int
    seed: int
    prediction: NDArray[np.int64]
    """``[N]``."""


def margins(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Logit of the label minus the largest other one, ``[N]``: below 0 is wrong, near 0 is at the boundary."""
    scores = logits.astype(np.float64)
    rows = np.arange(len(labels))
    own = scores[rows, labels]
    others = scores.copy()
    others[rows, labels] = -np.inf
    return np.asarray(own - others.max(1), dtype=np.float64)


def verdicts(wrong: NDArray[np.bool_]) -> list[Verdict]:
    """Of each review: wrong in all runs, in some, or in none. ``wrong`` ``[runs, N]``."""
    counts = wrong.sum(0)
    return ["never" if count == 0 else "always" if count == len(wrong) else "sometimes" for count in counts]


def flips(runs: Sequence[RunOfReviews]) -> tuple[list[Pair], list[Pair]]:
    """Whether the predictions of two runs differ, per review: pairs of batch sizes of one seed, pairs of seeds of one
    batch size."""
    of_batch: list[Pair] = []
    of_seed: list[Pair] = []
    for one, two in combinations(runs, 2):
        differs = (one.prediction != two.prediction).astype(float)
        if one.seed == two.seed and one.batch != two.batch:
            of_batch.append(Pair(one.seed, two.seed, differs))
        if one.batch == two.batch and one.seed != two.seed:
            of_seed.append(Pair(one.seed, two.seed, differs))
    return of_batch, of_seed


def length_groups(length: NDArray[np.integer]) -> list[tuple[int, int]]:
    """Shortest and longest of up to ``LENGTH_GROUPS`` groups of about equal size, ascending; equal lengths together."""
    ordered = np.sort(length)
    starts = np.unique(ordered[[len(ordered) * part // LENGTH_GROUPS for part in range(LENGTH_GROUPS)]])
    place = np.searchsorted(starts, length, side="right")
    return [(int(length[place == number].min()), int(length[place == number].max())) for number in np.unique(place)]
