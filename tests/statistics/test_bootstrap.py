"""The multi-bootstrap: closed forms where the seeds, or the reviews, are all that varies."""

import numpy as np
import pytest
from scipy import stats

from batchscope.statistics.bootstrap import AT_ONCE, multi_bootstrap


def test_with_one_seed_the_draws_are_binomial() -> None:
    """Of 200 reviews 60 differ: the mean of a draw is a binomial share; 0.5% of the draws is three standard errors."""
    data = np.repeat([1, 0], [60, 140])[None].astype(np.int8)
    ((low, high),) = multi_bootstrap([data], level=0.2, draws=20_000)
    share = stats.binom(200, 0.3)
    assert share.cdf(200 * low - 1) <= 0.105 and share.cdf(200 * low) >= 0.095
    assert share.cdf(200 * high - 1) <= 0.905 and share.cdf(200 * high) >= 0.895


def test_with_equal_reviews_the_draws_are_those_of_the_seeds() -> None:
    """Seeds of 0 and 1: draws of two have the means 0, ½ and 1 with the chances ¼, ½ and ¼."""
    data = np.repeat([[0], [1]], 7, axis=1).astype(np.int8)
    found = [multi_bootstrap([data], level=level, draws=3 * AT_ONCE + 1)[0].tolist() for level in (0.05, 0.6)]
    assert found == [[0.0, 1.0], [0.5, 0.5]]


def test_all_differences_share_the_draws_of_reviews() -> None:
    data = np.random.default_rng(1).integers(-1, 2, (1, 90)).astype(np.int8)
    first, second = multi_bootstrap([data, -data], draws=AT_ONCE + 10)
    assert first.tolist() == pytest.approx((-second[::-1]).tolist(), abs=1e-12)
    assert multi_bootstrap([data], draws=AT_ONCE, seed=1).tolist() != multi_bootstrap([data], draws=AT_ONCE).tolist()
    assert multi_bootstrap([]).shape == (0, 2)


def test_the_same_study_has_the_same_interval_and_every_draw_counts() -> None:
    data = np.random.default_rng(2).integers(-1, 2, (3, 40)).astype(np.int8)
    once, again = (multi_bootstrap([data], draws=AT_ONCE) for _ in range(2))
    assert once.tolist() == again.tolist()
    ones = multi_bootstrap([np.ones((2, 40), dtype=np.int8)], level=0.0, draws=AT_ONCE + 1)
    assert ones.tolist() == [[1.0, 1.0]], "the least and the largest of all draws"
