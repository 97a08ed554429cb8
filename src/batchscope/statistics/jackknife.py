"""The delete-one-group jackknife of a ratio of two means, over blocks of consecutive rows. Pure."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

GROUPS = 8
"""Blocks that the rows are cut into. More would leave fewer rows for their autocorrelation to die out in."""
LEVEL = 0.95
Floats = NDArray[np.float64]


def ratio_intervals(
    numerator: Floats, denominator: Floats, starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """95% intervals of mean(numerator) / mean(denominator) over the rows ``starts[i]`` to ``stops[i]``, ``[points]``.

    ``numerator`` and ``denominator`` are ``[rows]``, in an order in which neighbours may be correlated. Each stretch of
    rows is cut into ``GROUPS`` blocks. The jackknife is that of the inverse ratio, mean(denominator) /
    mean(numerator), whose distribution is close to normal where the denominator is the noisy one and may come near
    zero; the interval is then inverted. Its upper end is infinite where the denominator is not told from zero. NaN
    where there are fewer rows than blocks, and where the numerator or the whole interval of the inverse is not above
    zero.

    Variance with unequal blocks: Busing, Meijer and van der Leeden 1999, Statistics and Computing 9:3–8; with t on
    ``GROUPS − 1`` degrees of freedom.
    """
    rows = stops - starts
    edges = starts[:, None] + rows[:, None] * np.arange(GROUPS + 1) // GROUPS
    upper, lower = (np.concatenate([[0.0], np.cumsum(column)])[edges] for column in (denominator, numerator))
    upper_of, lower_of, size = (np.diff(column) for column in (upper, lower, edges))
    upper_sum, lower_sum = upper[:, -1:] - upper[:, :1], lower[:, -1:] - lower[:, :1]
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = (upper_sum / lower_sum)[:, 0]
        without = (upper_sum - upper_of) / (lower_sum - lower_of)
        weight = rows[:, None] / size
        estimate = GROUPS * inverse - ((1 - 1 / weight) * without).sum(1)
        pseudo = weight * inverse[:, None] - (weight - 1) * without
        variance = ((pseudo - estimate[:, None]) ** 2 / (weight - 1)).mean(1)
        half = stats.t.ppf((1 + LEVEL) / 2, GROUPS - 1) * np.sqrt(variance)
        low, high = 1 / (inverse + half), np.where(inverse > half, 1 / (inverse - half), np.inf)
    known = (rows >= GROUPS) & (lower_sum[:, 0] > 0) & (inverse + half > 0)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)
