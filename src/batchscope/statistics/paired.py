"""Two runs on the same reviews: intervals, McNemar's test and its correction. Pure."""

import math
from collections.abc import Hashable, Iterable, Mapping
from itertools import combinations
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from batchscope.report.spec import GridCell

NORMAL_975 = 1.959963984540054
Key = TypeVar("Key", bound=Hashable)
Correct = NDArray[np.bool_]


class Contrast(NamedTuple):
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
    n: int
    """Number of test reviews."""
    smaller_accuracy: float
    larger_accuracy: float
    difference_points: float
    """Accuracy of the larger batch size minus that of the smaller one, in points (percent)."""
    standard_error_points: float
    """Standard error of the difference of two independent binomials, in points."""
    paired_standard_error_points: float
    """Standard error from the reviews on which the two runs disagree, in points."""
    only_smaller_correct: int
    """Reviews that the run with the smaller batch size alone gets right."""
    only_larger_correct: int
    """Reviews that the run with the larger batch size alone gets right."""
    mcnemar_p: float
    """Two-sided exact p of McNemar's test."""
    mcnemar_p_holm: float
    """The same after Holm's correction over all tests of the study."""
    comparisons: int
    """Number of tests in that correction: the distinct pairs of runs."""


def wilson_interval(accuracy: float, examples: int) -> tuple[float, float]:
    """95% score interval of a proportion (Wilson 1927). It lies within [0, 1] and is sound near both ends."""
    z2 = NORMAL_975**2 / examples
    centre = (accuracy + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * accuracy * (1 - accuracy) + z2**2 / 4) / (1 + z2)
    return max(0.0, centre - half), min(1.0, centre + half)


def binomial_standard_error(accuracy: float, examples: int) -> float:
    """Standard error of a proportion of ``examples`` independent ones."""
    return math.sqrt(accuracy * (1 - accuracy) / examples)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p of McNemar's test (1947): the discordant pairs against a fair coin; 1 if there are none."""
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Step-down correction of a family of p-values (Holm 1979). Each adjusted value is at most 1."""
    adjusted: dict[Key, float] = {}
    running = 0.0
    for rank, key in enumerate(sorted(p_values, key=lambda k: p_values[k])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[key]))
        adjusted[key] = running
    return adjusted


def batch_size_contrasts(cells: Iterable[GridCell], test_correct: Mapping[str, Correct]) -> list[Contrast]:
    """Compare every pair of batch sizes within a model, policy, budget and seed on the same test reviews.

    ``test_correct`` maps a run to booleans ``[N]``: whether its prediction is right, with the reviews in one order for
    all runs. Holm's family holds each pair of runs once, so that cells that read the same two runs do not count twice.
    """
    groups: dict[tuple[str, str, str, int], list[GridCell]] = {}
    for cell in cells:
        groups.setdefault((cell.model, cell.policy, cell.budget, cell.seed), []).append(cell)
    contrasts = [
        _compare(small, large, test_correct)
        for members in groups.values()
        for small, large in combinations(sorted(members, key=lambda cell: cell.batch), 2)
    ]
    family = {(contrast.smaller_run, contrast.larger_run): contrast.mcnemar_p for contrast in contrasts}
    adjusted = holm(family)
    return [
        contrast._replace(mcnemar_p_holm=adjusted[contrast.smaller_run, contrast.larger_run], comparisons=len(family))
        for contrast in contrasts
    ]


def _compare(small: GridCell, large: GridCell, test_correct: Mapping[str, Correct]) -> Contrast:
    """One contrast, as if it were the only one."""
    smaller, larger = test_correct[small.run], test_correct[large.run]
    n = len(smaller)
    accuracy = int(smaller.sum()) / n, int(larger.sum()) / n
    only_smaller, only_larger = int((smaller & ~larger).sum()), int((larger & ~smaller).sum())
    discordant, net = only_smaller + only_larger, only_larger - only_smaller
    p = mcnemar_exact(only_smaller, only_larger)
    return Contrast(
        model=small.model,
        lr_policy=small.policy,
        budget=small.budget,
        seed=small.seed,
        smaller_batch=small.batch,
        larger_batch=large.batch,
        smaller_run=small.run,
        larger_run=large.run,
        n=n,
        smaller_accuracy=accuracy[0],
        larger_accuracy=accuracy[1],
        difference_points=100 * net / n,
        standard_error_points=100 * math.hypot(*(binomial_standard_error(value, n) for value in accuracy)),
        paired_standard_error_points=100 * math.sqrt(discordant - net**2 / n) / n,
        only_smaller_correct=only_smaller,
        only_larger_correct=only_larger,
        mcnemar_p=p,
        mcnemar_p_holm=p,
        comparisons=1,
    )
