"""Proportions and pairs of runs on the same reviews: intervals, McNemar's test, Holm's correction. Pure.

statsmodels is imported where it is used: it takes a second, and many modules read this one.
"""

import math
from collections.abc import Hashable, Iterable, Mapping
from functools import cache
from itertools import combinations
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, binomtest

from batchscope.report.spec import GridCell
from batchscope.statistics.grid import cells_by

NORMAL_975 = 1.959963984540054
Key = TypeVar("Key", bound=Hashable)
Correct = NDArray[np.bool_]


class Pair(NamedTuple):
    """Two target batch sizes of one model, LR policy, budget and seed, compared on the same test reviews."""

    model: str
    lr_policy: str
    budget: str
    seed: int
    smaller_batch: int
    larger_batch: int
    smaller_run: str
    """Folder of the run below ``runs/``; cells that resolve to the same training share one."""
    larger_run: str
    reviews: int
    """Number of test reviews."""
    smaller_accuracy: float
    larger_accuracy: float
    difference_points: float
    """Accuracy of the larger batch size minus that of the smaller one, in points (percent)."""
    only_smaller_correct: int
    """Reviews that the run with the smaller batch size alone gets right."""
    only_larger_correct: int
    """Reviews that the run with the larger batch size alone gets right."""
    mcnemar_p: float
    """Two-sided exact p of McNemar's test."""
    mcnemar_mid_p: float
    """Its mid-p."""


def wilson_interval(accuracy: float, examples: int) -> tuple[float, float]:
    """95% score interval of a proportion (Wilson 1927). It lies within [0, 1] and is sound near both ends."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(accuracy * examples, examples, alpha=0.05, method="wilson")
    return float(low), float(high)


def binomial_standard_error(accuracy: float, examples: int) -> float:
    """Standard error of a proportion of ``examples`` independent ones."""
    return math.sqrt(accuracy * (1 - accuracy) / examples)


@cache
def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p of McNemar's test (1947): the discordant pairs against a fair coin; 1 if there are none."""
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def mcnemar_mid_p(only_first: int, only_second: int) -> float:
    """Two-sided mid-p of McNemar's test: the outcome seen counts half, in both directions where they differ.

    Fagerland, Lydersen and Laake 2013, doi 10.1186/1471-2288-13-91: closer to the level than the exact test, which
    is conservative.
    """
    discordant = only_first + only_second
    if not discordant:
        return 1.0
    outcome = float(binom.pmf(only_first, discordant, 0.5))
    return mcnemar_exact(only_first, only_second) - (outcome if only_first != only_second else outcome / 2)


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Step-down correction of a family of p-values (Holm 1979). Each adjusted value is at most 1."""
    from statsmodels.stats.multitest import multipletests

    if not p_values:
        return {}
    adjusted = multipletests(list(p_values.values()), method="holm")[1]
    return dict(zip(p_values, map(float, adjusted), strict=True))


def batch_size_pairs(cells: Iterable[GridCell], test_correct: Mapping[str, Correct]) -> list[Pair]:
    """Every pair of batch sizes within a model, policy, budget and seed, on the same test reviews.

    ``test_correct`` maps a run to booleans ``[N]``: whether its prediction is right, with the reviews in one order for
    all runs. The pairs describe: no correction is made for their number.
    """
    return [
        _compare(small, large, test_correct[small.run], test_correct[large.run])
        for members in cells_by(cells, "model", "policy", "budget", "seed")
        for small, large in combinations(sorted(members, key=lambda cell: cell.batch), 2)
    ]


def disagreements(first: Correct, second: Correct) -> tuple[int, int]:
    """Reviews that the first run alone gets right, and those that the second alone gets right."""
    return int((first & ~second).sum()), int((second & ~first).sum())


def _compare(small: GridCell, large: GridCell, smaller: Correct, larger: Correct) -> Pair:
    n = len(smaller)
    only_smaller, only_larger = disagreements(smaller, larger)
    return Pair(
        model=small.model,
        lr_policy=small.policy,
        budget=small.budget,
        seed=small.seed,
        smaller_batch=small.batch,
        larger_batch=large.batch,
        smaller_run=small.run,
        larger_run=large.run,
        reviews=n,
        smaller_accuracy=int(smaller.sum()) / n,
        larger_accuracy=int(larger.sum()) / n,
        difference_points=100 * (only_larger - only_smaller) / n,
        only_smaller_correct=only_smaller,
        only_larger_correct=only_larger,
        mcnemar_p=mcnemar_exact(only_smaller, only_larger),
        mcnemar_mid_p=mcnemar_mid_p(only_smaller, only_larger),
    )
