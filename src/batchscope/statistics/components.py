"""Where the scatter of a difference comes from: seeds, reviews, and what remains. Pure."""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from batchscope.statistics.crossed import Moments, seed_variance


class Components(NamedTuple):
    """Standard deviations of one review's difference with one seed, on the scale of the metric.

    Model: d_ij = δ + seed_j + review_i + residual_ij, where d_ij is the difference of two cells.
    """

    seed: float
    """Of the whole model from seed to seed, beyond what single reviews explain. NaN for one seed."""
    review: float
    """Of the difference from review to review that all seeds share: review × batch size. NaN for one seed."""
    residual: float
    """Of what neither explains. For one seed, review and residual together."""


def components(m: Moments) -> Components:
    """The components by the method of moments: E[c̄] = σ²_review, E[v̄] = σ²_review + σ²_residual,
    E[s²_D] = σ²_seed + σ²_residual/N. An estimate below zero is zero.

    Where all seeds have the same difference, and where the models of one seed predict alike, the residual is at least
    that of one differing review per seed, as in the standard error (``crossed.seed_variance``). Zero would claim that
    any difference is found.
    """
    one_review = 1 / m.reviews
    if m.seeds < 2:
        return Components(math.nan, math.nan, math.sqrt(max(float(m.variance), one_review)))
    review = max(float(m.covariance), 0.0)
    alike = float(seed_variance(m)) > float(m.seed_variance)
    residual = max(float(m.variance) - review, one_review if alike else 0.0)
    seed = max(float(m.seed_variance) - residual / m.reviews, 0.0)
    return Components(math.sqrt(seed), math.sqrt(review), math.sqrt(residual))


def chance_sd(accuracy: float, reviews: int) -> float:
    """SD over seeds of a stable classifier's accuracy on ``reviews`` test reviews: √(err/(2N)).

    Jordan 2023, arXiv 2304.01910: exact for two classes and a calibrated ensemble of seeds. For more classes it is
    an upper bound.
    """
    return math.sqrt((1 - accuracy) / (2 * reviews))


class SeedScatter(NamedTuple):
    """The scatter of one cell's accuracy over its seeds, beside that of a stable classifier."""

    sd: float
    """Sample SD over seeds; NaN for one seed."""
    expected: float
    """``chance_sd`` of the mean accuracy."""
    p: float
    """p of no more scatter than expected: χ² with J − 1 degrees of freedom; NaN for one seed."""


def seed_scatter(accuracies: "np.typing.ArrayLike", reviews: int) -> SeedScatter:
    """Compare the accuracies ``[J]`` of a cell's seeds on the same reviews with a stable classifier's."""
    values = np.asarray(accuracies, dtype=np.float64)
    expected = chance_sd(float(values.mean()), reviews)
    if len(values) < 2:
        return SeedScatter(math.nan, expected, math.nan)
    sd = float(values.std(ddof=1)) if np.ptp(values) else 0.0  # to the last bit
    p = float(stats.chi2.sf((len(values) - 1) * (sd / expected) ** 2, len(values) - 1)) if expected else math.nan
    return SeedScatter(sd, expected, p)
