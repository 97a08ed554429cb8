"""The distribution of a·t + b·z: a Student t and a normal variable, independent. Pure.

It is Behrens and Fisher's (1935) for two variances, one estimated with few degrees of freedom and one known. A test by
it keeps its level: Robinson 1976, doi 10.1214/aos/1176343594. Welch's and Satterthwaite's approximation, a t with
estimated degrees of freedom, does so at 5% but not at the small levels that Holm's correction asks for.
"""

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

Array = NDArray[np.float64]
NODES = 96
STEPS = 26
"""Halvings that find a critical value: to seven digits."""
ABSCISSAE, WEIGHTS = np.polynomial.legendre.leggauss(NODES)


@cache
def _scales(df: float) -> tuple[Array, Array]:
    """Values of χ²/df and their weights: Gauss-Legendre over the quantiles, dense near zero, which makes the tails."""
    v = (ABSCISSAE + 1) / 2
    return np.asarray(stats.chi2.ppf(v**4, df) / df), WEIGHTS * 2 * v**3


def upper_tail(x: ArrayLike, estimated: ArrayLike, known: ArrayLike, df: float) -> Array:
    """P(√estimated·t + √known·z > x) with ``df`` degrees of freedom of t.

    Given χ²/df = w, the sum is normal with the variance estimated/w + known; the mean over w is a sum over nodes. Where
    ``known`` is zero it is Student's t, and for infinite ``df`` normal.
    """
    x, estimated, known = np.broadcast_arrays(x, estimated, known)
    if np.isinf(df):
        return np.asarray(special.ndtr(-x / np.sqrt(estimated + known)))
    scales, weights = _scales(df)
    sd = np.sqrt(estimated[..., None] / scales + known[..., None])
    mixed = (special.ndtr(-x[..., None] / sd) * weights).sum(-1)
    student = known == 0
    if student.any():
        mixed = np.where(student, special.stdtr(df, -x / np.sqrt(np.where(student, estimated, 1.0))), mixed)
    return np.asarray(mixed)


def critical_value(level: float, estimated: ArrayLike, known: ArrayLike, df: float) -> Array:
    """The x that |√estimated·t + √known·z| exceeds with probability ``level``."""
    estimated, known = np.broadcast_arrays(estimated, known)
    scale = np.sqrt(estimated + known)
    low = stats.norm.ppf(1 - level / 2) * scale * 0.5
    high = stats.t.ppf(1 - level / 2, df) * scale * 1.01
    for _ in range(STEPS):
        middle = np.sqrt(low * high)  # at tiny levels t's bound is many orders of magnitude above
        above = 2 * upper_tail(middle, estimated, known, df) > level
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray(np.sqrt(low * high))
