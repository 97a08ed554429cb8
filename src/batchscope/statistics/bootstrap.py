"""The multi-bootstrap over seeds × reviews, a check beside the crossed interval. Pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
AT_ONCE = 250
"""Draws computed together: bounds the memory."""


def multi_bootstrap(
    data: Sequence[NDArray[np.int8]], level: float = 0.05, draws: int = DRAWS, seed: int = 0
) -> NDArray[np.float64]:
    """Percentile intervals ``[K, 2]`` of K mean differences, each with data ``[J, N]`` on the same N reviews.

    Sellam et al. 2022 (arXiv 2106.16163), paired over seeds: each draw takes J seeds and N reviews with replacement
    and averages their cells. All K differences share the draws of reviews. With few seeds the interval errs both ways:
    drawing seeds shows (J − 1)/J of their variance, and the residual is counted once with the seeds and once with the
    reviews.
    """
    if not data:
        return np.empty((0, 2))
    rng = np.random.default_rng(seed)
    reviews = data[0].shape[1]
    wide = [cells.astype(np.float32) for cells in data]
    means = np.empty((len(data), draws))
    for start in range(0, draws, AT_ONCE):
        stop = min(start + AT_ONCE, draws)
        drawn = rng.integers(0, reviews, (stop - start, reviews))
        weights = np.stack([np.bincount(row, minlength=reviews) for row in drawn]).astype(np.float32)
        for number, cells in enumerate(wide):
            seeds = len(cells)
            chosen = rng.multinomial(seeds, np.full(seeds, 1 / seeds), stop - start)
            per_seed = weights @ cells.T
            means[number, start:stop] = (per_seed * chosen).sum(1) / (seeds * reviews)
    return np.quantile(means, [level / 2, 1 - level / 2], axis=1).T
