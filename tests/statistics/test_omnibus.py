"""The F test over all batch sizes: a table worked by hand, the dense reference, and its special case of two sizes."""

import math

import numpy as np
import pytest
from scipy import stats
from slow_statistics import reference_omnibus

from batchscope.statistics.crossed import moments, population
from batchscope.statistics.omnibus import omnibus, trend

BY_HAND = np.array(
    [[[1, 1, 1, 0], [1, 1, 0, 0]], [[1, 0, 0, 0], [1, 1, 0, 0]], [[1, 0, 0, 0], [0, 0, 0, 0]]],
    dtype=bool,
)
"""Three batch sizes, two seeds, four reviews. Accuracies .75 .5 | .25 .5 | .25 0; means .625 .375 .125.

MS(T) = 2(.25² + 0 + .25²)/2 = .125. Residuals ±1/12, ±1/6, ±1/12: MS(TR) = (1/12)/2 = 1/24. Covariances between seeds:
1/6, 1/6, 0 at one batch size, and 1/6 for four of the six pairs at different ones: Cov₂ = Cov₃ = 1/9. So F = .125·24
= 3 with 2 and (3 − 1)(2 − 1) = 2 degrees of freedom, whose tail is 1/(1 + F).
"""


def test_f_is_the_table_worked_by_hand() -> None:
    assert omnibus(BY_HAND) == pytest.approx((3.0, 2.0, 2.0, 0.25), abs=1e-10)


@pytest.mark.parametrize(("levels", "seeds"), [(3, 2), (3, 3), (4, 5)])
def test_f_is_the_dense_reference(levels: int, seeds: int) -> None:
    rng = np.random.default_rng(levels)
    difficulty = rng.normal(1, 1, (levels, 1, 80)) + rng.normal(0, 1.5, 80)
    correct = difficulty + rng.normal(0, 0.7, (levels, seeds, 80)) > 0
    f, df2 = reference_omnibus(correct)
    found = omnibus(correct)
    assert (found.f, found.df2) == pytest.approx((f, df2), rel=1e-10)


def test_of_two_batch_sizes_f_is_the_square_of_t_and_the_trend_its_difference() -> None:
    rng = np.random.default_rng(2)
    correct = rng.normal(1, 1, (2, 1, 90)) + rng.normal(0, 1, (2, 4, 90)) > 0
    single = population(moments(correct[1].astype(np.int8) - correct[0].astype(np.int8)))
    found = omnibus(correct)
    assert found.f == pytest.approx(float(single.difference / single.standard_error) ** 2, rel=1e-10)
    assert found.df2 == pytest.approx(float(single.df), rel=1e-10)
    assert found.p == pytest.approx(2 * stats.t.sf(math.sqrt(found.f), found.df2), rel=1e-9)
    slope = trend(correct, [64, 256])
    assert float(slope.difference) == pytest.approx(float(single.difference) / 2, abs=1e-12)
    assert float(slope.standard_error) == pytest.approx(float(single.standard_error) / 2, abs=1e-12)
    assert float(slope.df) == pytest.approx(float(single.df), rel=1e-9)


def test_the_trend_is_the_least_squares_slope() -> None:
    rng = np.random.default_rng(4)
    correct = rng.random((3, 2, 200)) < np.array([0.9, 0.8, 0.75])[:, None, None]
    expected = np.polyfit(np.log2([16, 64, 1024]), correct.mean((1, 2)), 1)[0]
    assert float(trend(correct, [16, 64, 1024]).difference) == pytest.approx(expected, abs=1e-12)
    one = trend(correct[:, :1], [16, 64, 1024])
    assert math.isinf(float(one.df))
    assert 0 < float(one.p_value()) < 1


def test_equal_accuracies_are_not_certain() -> None:
    correct = np.zeros((3, 3, 30), dtype=bool)
    correct[:, :, :20] = True
    assert omnibus(correct).p == 1
