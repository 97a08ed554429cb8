"""What a study can establish: the smallest difference with the wanted power, and what the margin needs. Pure.

The variance of a difference over J seeds and N reviews follows from its components:
SE²(J, N) = (σ²_seed + σ²_residual/N)/J + σ²_review/N. See ``docs/methods.md``.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from batchscope.statistics.behrens_fisher import critical_value
from batchscope.statistics.components import Components

MOST = 1_000_000
"""Seeds, or reviews per review at hand: more is not searched."""
NORMAL_FROM = 200
"""Seeds from which their scatter counts as known."""
ABSCISSAE, WEIGHTS = np.polynomial.legendre.leggauss(24)
SHARES = 33
"""Points of the table of critical values, between which it is interpolated: an error below a thousandth."""


def parts_of_variance(parts: Components, seeds: float, reviews: float) -> tuple[float, float]:
    """The parts of SE² that the seeds and that the reviews give. ``seeds`` may be infinite.

    Components that one seed cannot show are taken as zero, so that a result is a lower bound.
    """
    seed, review, residual = (0.0 if math.isnan(part) else part for part in parts)
    return (seed**2 + residual**2 / reviews) / seeds, review**2 / reviews


@cache
def _scales(df: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values of χ²/df and their weights: Gauss-Legendre over the quantiles."""
    return np.asarray(stats.chi2.ppf((ABSCISSAE + 1) / 2, df) / df), WEIGHTS / 2


def critical_values(
    parts: Components, seeds: float, reviews: float, level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How large an estimate must be to be *different* at ``level``, over the scatter that the seeds may show, and the
    probability of each.
    """
    from_seeds, from_reviews = parts_of_variance(parts, seeds, reviews)
    if seeds == 1 or seeds >= NORMAL_FROM:
        return np.array([stats.norm.ppf(1 - level / 2) * math.sqrt(from_seeds + from_reviews)]), np.ones(1)
    scales, weights = _scales(int(seeds) - 1)
    total = from_seeds * scales + from_reviews
    shares, critical = _standardised(level, int(seeds) - 1)
    return np.sqrt(total) * np.interp(from_seeds * scales / total, shares, critical), weights


@cache
def _standardised(level: float, df: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Critical values of a sum of variance one, over the share of the variance that comes from the seeds."""
    shares = np.linspace(0, 1, SHARES)
    return shares, critical_value(level, shares, 1 - shares, df)


def smallest_difference(parts: Components, seeds: float, reviews: float, level: float, wanted: float) -> float:
    """The true difference that the two-sided test at ``level`` finds with probability ``wanted``."""
    error = math.sqrt(sum(parts_of_variance(parts, seeds, reviews)))
    if error == 0:
        return 0.0
    critical, weights = critical_values(parts, seeds, reviews, level)

    def power(difference: float) -> float:
        found = special.ndtr((difference - critical) / error) + special.ndtr((-difference - critical) / error)
        return float((found * weights).sum())

    high = error
    while power(high) < wanted:
        high *= 2
    return float(optimize.brentq(lambda difference: power(difference) - wanted, 0.0, high, rtol=1e-6))


def seeds_needed(parts: Components, margin: float, seeds: int, reviews: int, level: float, wanted: float) -> float:
    """Seeds for a difference of ``margin``, at least ``seeds``; infinity where no number of seeds is enough."""

    def enough(count: float) -> bool:
        return smallest_difference(parts, count, reviews, level, wanted) <= margin

    return float(_smallest(enough, max(seeds, 2), MOST)) if enough(math.inf) else math.inf


def reviews_needed(parts: Components, margin: float, seeds: int, reviews: int, level: float, wanted: float) -> float:
    """Test reviews for a difference of ``margin``, at least ``reviews``; infinity where no number of them is enough."""

    def enough(count: float) -> bool:
        return smallest_difference(parts, seeds, count, level, wanted) <= margin

    most = reviews * MOST
    return float(_smallest(enough, reviews, most)) if enough(most) else math.inf


def _smallest(enough: Callable[[float], bool], low: int, most: int) -> float:
    """The smallest whole number from ``low`` on for which ``enough`` holds, which then holds for all larger ones."""
    if enough(low):
        return low
    high = 2 * low
    while not enough(high):
        if high > most:
            return math.inf
        low, high = high, 4 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
