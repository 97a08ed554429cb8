"""What lies between two trained models; whether sharpness says more of accuracy than the learning rates do. Pure."""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from batchscope.report.spec import GridCell

Numbers = NDArray[np.float64]
Kind = Literal["batch sizes", "seeds"]
FEWEST_RUNS = 8
"""With fewer runs a partial rank correlation can take almost any value by chance."""
DRAWS = 2000
DRAW_SEED = 0
FEWEST_DRAWS = 0.9
"""Share of the draws that must have a correlation for an interval to be given."""


class RunPair(NamedTuple):
    """Two runs of one model, LR policy and budget, by their positions among the members."""

    kind: Kind
    first: int
    second: int


class Barrier(NamedTuple):
    """The highest rise of the loss above the straight line between the losses of two models."""

    height: float
    at: float
    """Where: 0 is the first model, 1 the second."""


class Association(NamedTuple):
    """Spearman's rank correlations of a measure over runs, with 95% percentile intervals."""

    accuracy: float
    """With test accuracy."""
    accuracy_low: float
    accuracy_high: float
    lr_sum: float
    """With the sum of the learning rates; NaN for the sum itself."""
    partial: float
    """With test accuracy, both without what their ranks share with those of the sum of the learning rates."""
    partial_low: float
    partial_high: float


# --------------------------------------------------------------------------------------------------- pairs of runs


def pairs_of_runs(members: Sequence[GridCell], most: int) -> list[RunPair]:
    """At most ``most`` pairs of each kind: batch sizes with the smallest of the same seed, seeds of one batch size.

    The pairs are taken in turn from all batch sizes, so that a limit leaves none out before it leaves out seeds.
    """
    smallest = min(cell.batch for cell in members)
    place = {(cell.batch, cell.seed): number for number, cell in enumerate(members)}
    sizes = sorted({cell.batch for cell in members})
    seeds = list(dict.fromkeys(cell.seed for cell in members))
    across = [
        RunPair("batch sizes", place[smallest, seed], place[batch, seed])
        for seed in seeds
        for batch in sizes
        if batch != smallest and {(smallest, seed), (batch, seed)} <= place.keys()
    ]
    between = [
        RunPair("seeds", place[batch, one], place[batch, two])
        for one, two in combinations(seeds, 2)
        for batch in sizes
        if {(batch, one), (batch, two)} <= place.keys()
    ]
    return across[:most] + between[:most]


def barrier(positions: Numbers, losses: Numbers) -> Barrier:
    """Largest loss(α) − ((1 − α) loss(0) + α loss(1)) over points α ``[K]`` of a line from 0 to 1; at least 0.

    Frankle et al. 2020 (arXiv 1912.05671), in the form of Entezari et al. 2022 (arXiv 2110.06296).
    """
    rise = losses - ((1 - positions) * losses[0] + positions * losses[-1])
    highest = int(rise.argmax())
    return Barrier(max(0.0, float(rise[highest])), float(positions[highest]))


def linear_cka(first: Numbers, second: Numbers) -> float:
    """Linear centred kernel alignment of two models' features ``[N, H]`` of the same N examples, from 0 to 1.

    ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) of the centred features (Kornblith et al. 2019, arXiv 1905.00414): 1 where one is the other,
    rotated and scaled. NaN for features that are equal for all examples. With fewer examples than features, unrelated
    models are also far above 0.
    """
    x, y = (features - features[:1] for features in (first, second))  # exactly 0 where all examples are equal
    x, y = x - x.mean(0), y - y.mean(0)
    own = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / own) if own > 0 else float("nan")


# --------------------------------------------------------------------------------------------------- over all runs


def association(measure: Numbers, accuracy: Numbers, lr_sum: Numbers) -> Association:
    """Rank correlations of a measure ``[R]`` over runs with test accuracy ``[R]``, before and after ΣLR ``[R]``.

    Intervals are percentiles over draws of R runs with replacement, ranked anew. They take the runs as independent,
    which runs of one cell are not quite. NaN where a column is constant, or decided by the ranks of ΣLR.
    """
    runs = len(measure)
    chosen = np.random.default_rng(DRAW_SEED).integers(runs, size=(DRAWS, runs))
    all_runs, draws = np.arange(runs)[None], chosen
    plain, partial, shared = (_correlations(measure, accuracy, lr_sum, all_runs)[name][0] for name in range(3))
    drawn_plain, drawn_partial, _ = _correlations(measure, accuracy, lr_sum, draws)
    low, high = _interval(drawn_plain)
    partial_low, partial_high = _interval(drawn_partial)
    return Association(float(plain), low, high, float(shared), float(partial), partial_low, partial_high)


def _correlations(measure: Numbers, accuracy: Numbers, lr_sum: Numbers, rows: NDArray[np.int64]) -> tuple[Numbers, ...]:
    """Of each row ``[D, R]`` of runs: measure with accuracy, the same given ΣLR, measure with ΣLR; each ``[D]``."""
    x, y, z = (_standardised(column[rows]) for column in (measure, accuracy, lr_sum))
    xy, xz, yz = (x * y).sum(1), (x * z).sum(1), (y * z).sum(1)
    left = (1 - xz**2) * (1 - yz**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        partial = np.where(left > 1e-9, (xy - xz * yz) / np.sqrt(left), np.nan)
    return xy, np.clip(partial, -1, 1), xz


def _standardised(values: Numbers) -> Numbers:
    """Ranks within each row ``[D, R]``, ties averaged, centred and of norm 1; NaN where all are equal."""
    ranks: Numbers = rankdata(values, axis=1)
    centred: Numbers = ranks - ranks.mean(1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    standardised: Numbers = centred / np.where(norm > 0, norm, np.nan)
    return standardised


def _interval(drawn: Numbers) -> tuple[float, float]:
    """2.5% and 97.5% quantile; NaN where too few draws have a value."""
    there = drawn[~np.isnan(drawn)]
    if len(there) < FEWEST_DRAWS * len(drawn):
        return float("nan"), float("nan")
    low, high = np.quantile(there, [0.025, 0.975])
    return float(low), float(high)


def excludes_zero(low: float, high: float) -> bool:
    """Whether an interval lies on one side of 0."""
    return low > 0 or high < 0
