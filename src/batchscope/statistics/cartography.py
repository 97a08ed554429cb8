"""Which training examples are easy, ambiguous or hard, and whether the batch size or the seed decides it. Pure.

Dataset cartography after Swayamdipta et al. 2020 (arXiv 2009.10795): an example is described by the probability that a
model gives its label at the end of every epoch.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchscope.statistics.divergence import DRAW_SEED, DRAWS, Ratio
from batchscope.statistics.geometry import RunPair

Numbers = NDArray[np.float64]
REGIONS = ("easy", "ambiguous", "hard")
EASY, AMBIGUOUS, HARD = range(3)
BORDER = 0.5
"""Probability of the label that separates easy from hard."""
SAME = 1e-12
"""1 − ρ of equal orders, up to rounding."""
FEWEST_EPOCHS = 2
"""With one epoch nothing varies."""


class DataMap(NamedTuple):
    """N training examples as one run sees them over E epochs."""

    confidence: Numbers
    """``[N]``: mean probability of the label over the epochs."""
    variability: Numbers
    """``[N]``: population standard deviation of that probability over the epochs."""
    right: NDArray[np.int64]
    """``[N]``: epochs after which the example is predicted right. Divided by E it is the correctness."""
    region: NDArray[np.int64]
    """``[N]``: index into ``REGIONS``."""


def data_map(probability: NDArray[np.floating], right: NDArray[np.bool_]) -> DataMap:
    """The map of probabilities of the label ``[N, E]`` and of right predictions ``[N, E]``.

    Swayamdipta et al. 2020, section 2. The sums run over differences from the first epoch, so that equal
    probabilities have exactly that confidence and a variability of exactly 0.
    """
    first = probability[:, :1].astype(np.float64)
    change = probability - first
    shift = change.mean(1, keepdims=True)
    confidence = (first + shift)[:, 0]
    variability = np.sqrt(np.square(change - shift).mean(1))
    return DataMap(confidence, variability, right.sum(1).astype(np.int64), regions(confidence, variability))


def regions(confidence: Numbers, variability: Numbers) -> NDArray[np.int64]:
    """The region of each example ``[N]``.

    Easy: the mean probability of the label lies more than one standard deviation above a half. Hard: more than one
    below it. Ambiguous: a half lies within one standard deviation. The paper takes the third of all examples with the
    highest confidence, the lowest confidence and the highest variability instead; the shares of these are the same for
    every run, and cannot be compared.
    """
    return np.select(
        [confidence - variability > BORDER, confidence + variability < BORDER], [EASY, HARD], default=AMBIGUOUS
    )


def common_epochs(samples: Sequence[Sequence[int]]) -> int:
    """How many of the first epochs end at equal samples seen in all runs.

    ``samples[r]`` has the samples that run r has seen at the end of each of its epochs. Epochs that leave out their
    tail end at slightly other numbers; they count where every run ends its epoch whole, as long as its first.
    """
    found = 0
    for number, ends in enumerate(zip(*samples, strict=False), 1):
        whole = all(end == number * run[0] for end, run in zip(ends, samples, strict=True))
        if len(set(ends)) > 1 and not (whole and all(len(run) > 1 for run in samples)):
            break
        found = number
    return found


def pairs_of_maps(runs: Sequence[tuple[int, int]]) -> list[RunPair]:
    """All pairs of runs, each run a batch size and a seed, that differ in one of the two alone."""
    found = []
    for (first, one), (second, two) in combinations(enumerate(runs), 2):
        if one[1] == two[1] and one[0] != two[0]:
            found.append(RunPair("batch sizes", first, second))
        if one[0] == two[0] and one[1] != two[1]:
            found.append(RunPair("seeds", first, second))
    return found


class Ranks:
    """The order of N values in each of R runs, for rank correlations of resampled examples without sorting anew."""

    def __init__(self, values: Numbers) -> None:
        """``values`` ``[R, N]``."""
        self.order = np.argsort(values, axis=1, kind="stable")
        ordered = np.take_along_axis(values, self.order, axis=1)
        places = [(np.searchsorted(row, row), np.searchsorted(row, row, side="right")) for row in ordered]
        self.start, self.stop = (np.stack([pair[end] for pair in places]) for end in (0, 1))

    def correlations(self, times: Numbers) -> Numbers:
        """Spearman's rank correlation between all runs, ``[R, R]``, where example i is there ``times[i]`` times.

        Equal values share their mean rank. NaN for a run whose values are all equal.
        """
        below = np.cumsum(times[self.order], axis=1)
        below = np.concatenate([np.zeros((len(below), 1)), below], axis=1)
        ordered = np.take_along_axis(below, self.start, axis=1) + np.take_along_axis(below, self.stop, axis=1)
        ranks = np.empty_like(ordered)  # twice the mean rank, up to a constant
        np.put_along_axis(ranks, self.order, ordered, axis=1)
        centred = (ranks - ranks @ times[:, None] / times.sum()) * np.sqrt(times)
        norm = np.linalg.norm(centred, axis=1, keepdims=True)
        standardised = centred / np.where(norm > 0, norm, np.nan)  # sums of whole numbers are exact
        found: Numbers = standardised @ standardised.T
        return found


def rank_correlations(values: Numbers) -> Numbers:
    """Spearman's rank correlation between all rows ``[R, N]``: ``[R, R]``; NaN for a row whose values are all equal."""
    return Ranks(values).correlations(np.ones(values.shape[1]))


def rank_ratio(values: Numbers, seeds: Sequence[int], pairs: Sequence[RunPair]) -> Ratio | None:
    """Do two batch sizes order the examples more differently than two seeds? By the mean of 1 − Spearman's ρ.

    ``values`` ``[R, N]``, of the R runs with these seeds. Each draw takes as many seeds and examples as there are, with
    replacement; the examples are ranked anew, and pairs count as in ``divergence.batch_seed_ratio``. None where there
    is no pair of a kind with a correlation.
    """
    if not pairs:
        return None
    names = sorted(set(seeds))
    place = np.array([names.index(seed) for seed in seeds])
    first, second = (np.array([pair[end] for pair in pairs]) for end in (1, 2))
    of_batch = np.array([pair.kind == "batch sizes" for pair in pairs])
    ranks, count = Ranks(values), values.shape[1]

    def means(examples: Numbers, times: Numbers) -> tuple[float, float]:
        unlike = 1 - ranks.correlations(examples)[first, second]
        weight = np.where(of_batch, times[place[first]], times[place[first]] * times[place[second]])
        weight = np.where(np.isnan(unlike), 0, weight)
        unlike = np.where(unlike > SAME, unlike, 0)  # also where it is NaN
        total = [float(weight[kind].sum()) for kind in (of_batch, ~of_batch)]
        sums = [float(weight[kind] @ unlike[kind]) for kind in (of_batch, ~of_batch)]
        across, between = (part / whole if whole else np.nan for part, whole in zip(sums, total, strict=True))
        return across, between

    across, between = means(np.ones(count), np.ones(len(names)))
    if np.isnan(across) or np.isnan(between):
        return None
    rng, drawn = np.random.default_rng(DRAW_SEED), []
    for _ in range(DRAWS):
        above, below = means(_resampled(rng, count), _resampled(rng, len(names)))
        if below > 0 and not np.isnan(above):
            drawn.append(above / below)
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) >= DRAWS // 10 else (np.nan, np.nan)
    ratio = across / between if between > 0 else np.nan
    return Ratio(across, between, ratio, float(low), float(high), len(names), count)


def _resampled(rng: np.random.Generator, count: int) -> Numbers:
    """How often each of ``count`` things is drawn in as many draws with replacement, ``[count]``."""
    return np.bincount(rng.integers(count, size=count), minlength=count).astype(np.float64)
