"""All batch sizes of a model at once: the F test over readers × cases, and the trend over log₂ B. Pure."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from batchscope.report.spec import GridCell
from batchscope.statistics.crossed import ROUNDING, Estimate, moments, of_reviews, population
from batchscope.statistics.families import Place, grid_of
from batchscope.statistics.paired import Correct
from batchscope.statistics.records import Trend


class Omnibus(NamedTuple):
    """The test of no difference between any of K batch sizes, for seeds and reviews like these."""

    f: float
    df1: float
    df2: float
    p: float


def omnibus(correct: NDArray[np.bool_]) -> Omnibus:
    """F of ``correct`` ``[K, J, N]``: K batch sizes, J ≥ 2 seeds paired by number, N reviews.

    Obuchowski and Rockette 1995 with the degrees of freedom of Hillis 2007 (doi 10.1002/sim.2532):
    F = MS(T) / (MS(TR) + max(J(Cov₂ − Cov₃), 0)/N), where MS(T) and MS(TR) are the mean squares of batch size and of
    batch size × seed over the accuracies, Cov₂ the mean covariance over reviews of the correctness of different seeds
    at one batch size, Cov₃ that of different seeds at different ones. df₁ = K − 1,
    df₂ = denominator² / (MS(TR)²/((K − 1)(J − 1))), and (K − 1)(J − 1) for two seeds. For K = 2 it is the
    square of the t of ``crossed.population``.
    """
    levels, seeds, reviews = correct.shape
    accuracies = correct.sum(-1, dtype=np.int64) / reviews
    by_level, by_seed = accuracies.mean(1, keepdims=True), accuracies.mean(0)
    grand = accuracies.mean()
    between = seeds * float(((by_level - grand) ** 2).sum()) / (levels - 1)
    free = (levels - 1) * (seeds - 1)
    within = float(((accuracies - by_level - by_seed + grand) ** 2).sum()) / free
    variance, same_seed, same_level, neither = _covariances(correct)
    # Equal by chance, as in crossed.seed_variance; MS(TR) is half the variance of a difference of two batch sizes.
    chance = max(variance - same_seed - max(same_level - neither, 0.0), 0.5 / reviews) / reviews
    if within < ROUNDING * chance:
        within = chance
    noise = within + max(seeds * (same_level - neither), 0.0) / reviews
    df2 = float(free) if seeds == 2 else noise**2 / (within**2 / free)
    f = between / noise
    return Omnibus(f, levels - 1.0, df2, float(stats.f.sf(f, levels - 1, df2)))


def _covariances(correct: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Over reviews: the mean variance of a run, and the mean covariances of two runs that share the seed (Cov₁), the
    batch size (Cov₂) or neither (Cov₃). From variances of sums, without a matrix of all pairs of runs.
    """
    levels, seeds, _ = correct.shape
    of_run = float(_variance(correct.astype(np.int64)).sum())
    of_seed = float(_variance(correct.sum(0, dtype=np.int64)).sum())
    of_level = float(_variance(correct.sum(1, dtype=np.int64)).sum())
    of_all = float(_variance(correct.sum((0, 1), dtype=np.int64)))
    same_seed = (of_seed - of_run) / (seeds * levels * (levels - 1))
    same_level = (of_level - of_run) / (levels * seeds * (seeds - 1))
    neither = (of_all - of_level - of_seed + of_run) / (levels * (levels - 1) * seeds * (seeds - 1))
    return of_run / (levels * seeds), same_seed, same_level, neither


def _variance(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sample variance over the last axis of whole numbers."""
    n = counts.shape[-1]
    sums = counts.sum(-1)
    return np.asarray(((counts**2).sum(-1) - sums * (sums / n)) / (n - 1), dtype=np.float64)


def trend(correct: NDArray[np.bool_], batch_sizes: ArrayLike) -> Estimate:
    """Change of accuracy per doubling of the batch size: the least-squares slope over log₂ B, with crossed inference.

    ``correct`` is ``[K, J, N]``. The slope is linear in the correctness, so each seed and review has its own, and the
    difference of two cells is the case K = 2. With one seed it is that of these trained models, by the normal
    distribution.
    """
    x = np.log2(np.asarray(batch_sizes, dtype=np.float64))
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    found = moments(np.tensordot(weights, correct.astype(np.float64), axes=1))
    if found.seeds > 1:
        return population(found)
    square = np.maximum(found.variance, weights.max() ** 2 / found.reviews) / found.reviews
    return of_reviews(found.difference, np.asarray(square))


def trends(cells: Iterable[GridCell], correct: Mapping[str, Correct], faulty: Collection[str]) -> list[Trend]:
    """One row per model, LR policy and budget with two batch sizes or more."""
    groups: dict[tuple[str, ...], list[Place]] = {}
    grid = grid_of(cells)
    for place in grid:
        groups.setdefault(place.beside("batch_size"), []).append(place)
    rows = []
    for members in groups.values():
        places = sorted(members, key=lambda place: place.batch)
        seeds = [seed for seed in grid[places[0]] if all(seed in grid[place] for place in places)]
        if len(places) > 1 and seeds:
            rows.append(_trend(places, [[grid[place][seed] for seed in seeds] for place in places], correct, faulty))
    return rows


def _trend(
    places: Sequence[Place], runs: Sequence[Sequence[str]], correct: Mapping[str, Correct], faulty: Collection[str]
) -> Trend:
    stacked = np.stack([np.stack([correct[run] for run in of_place]) for of_place in runs])
    slope = trend(stacked, [place.batch for place in places])
    low, high = slope.interval()
    _, seeds, reviews = stacked.shape
    found = omnibus(stacked) if seeds > 1 else Omnibus(math.nan, len(places) - 1.0, math.nan, math.nan)
    return Trend(
        model=places[0].model,
        lr_policy=places[0].policy,
        budget=places[0].budget,
        batch_sizes=" ".join(str(place.batch) for place in places),
        seeds=seeds,
        reviews=reviews,
        f=found.f,
        df1=found.df1,
        df2=found.df2,
        p=found.p,
        slope_points=100 * float(slope.difference),
        se_points=100 * float(slope.standard_error),
        df=float(slope.df),
        low_points=100 * float(low),
        high_points=100 * float(high),
        p_slope=float(slope.p_value()),
        faulty=" ".join(dict.fromkeys(run for of_place in runs for run in of_place if run in faulty)),
    )
