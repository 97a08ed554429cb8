"""Does the batch size change a model more than the seed does? The ratio of two mean divergences. Pure.

A pair is two runs of one model; its divergence is known for each of N reviews. Pairs of two batch sizes share the seed,
pairs of two seeds share the batch size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
DRAW_SEED = 0


class Pair(NamedTuple):
    """The divergence of two runs."""

    first_seed: int
    second_seed: int
    """Equal for a pair of batch sizes."""
    divergence: NDArray[np.float64]
    """``[N]``, per review."""


class Ratio(NamedTuple):
    """Mean divergence between batch sizes over that between seeds."""

    between_batch_sizes: float
    between_seeds: float
    ratio: float
    low: float
    """2.5% quantile over resampled seeds and reviews; NaN where it cannot be told."""
    high: float
    seeds: int
    reviews: int


def batch_seed_ratio(batch_pairs: Sequence[Pair], seed_pairs: Sequence[Pair]) -> Ratio | None:
    """The ratio and its percentile interval; None without a pair of each kind.

    Each draw takes as many seeds and reviews as there are, with replacement, the same ones for both means. A pair of
    two seeds counts as often as the product of their numbers; a seed against itself does not count, so a draw of one
    seed alone is left out. So with two seeds the interval is over reviews alone, and with three it is rough.
    """
    if not batch_pairs or not seed_pairs:
        return None
    across, between = (np.stack([pair.divergence for pair in pairs]) for pairs in (batch_pairs, seed_pairs))
    seeds = sorted({seed for pair in (*batch_pairs, *seed_pairs) for seed in pair[:2]})
    place = {seed: number for number, seed in enumerate(seeds)}
    of_batch = np.array([place[pair.first_seed] for pair in batch_pairs])
    of_seeds = np.array([[place[seed] for seed in pair[:2]] for pair in seed_pairs])
    rng, reviews = np.random.default_rng(DRAW_SEED), across.shape[1]
    drawn = []
    for _ in range(DRAWS):
        times = np.bincount(rng.integers(len(seeds), size=len(seeds)), minlength=len(seeds)).astype(float)
        weight = np.bincount(rng.integers(reviews, size=reviews), minlength=reviews)
        pairs = times[of_seeds].prod(1)
        if pairs.sum() and times[of_batch].sum():
            above = times[of_batch] @ across @ weight / times[of_batch].sum()
            below = pairs @ between @ weight / pairs.sum()
            if below > 0:
                drawn.append(above / below)
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) >= DRAWS // 10 else (np.nan, np.nan)
    means = float(across.mean()), float(between.mean())
    ratio = means[0] / means[1] if means[1] > 0 else np.nan
    return Ratio(*means, ratio, float(low), float(high), len(seeds), reviews)
