"""Intervals, tests and corrections against the libraries and slow references."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from slow_statistics import reference_holm, reference_mcnemar
from statsmodels.stats.contingency_tables import mcnemar

from batchscope.statistics.paired import holm, mcnemar_exact, mcnemar_mid_p, wilson_interval


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_enumeration_and_statsmodels(first: int, second: int) -> None:
    found = mcnemar_exact(first, second)
    assert found == pytest.approx(reference_mcnemar(first, second), abs=1e-10)
    if first + second:
        assert found == pytest.approx(mcnemar([[5, first], [second, 7]], exact=True).pvalue, abs=1e-10)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 40), st.integers(0, 40))
def test_the_mid_p_counts_the_outcome_half_on_each_side(first: int, second: int) -> None:
    """Twice the smaller tail with half of the outcome's own probability."""
    n = first + second
    if not n:
        assert mcnemar_mid_p(0, 0) == 1
        return
    least = min(first, second)
    ways = [math.comb(n, k) for k in range(least + 1)]
    expected = 2 * (sum(ways) - ways[-1] / 2) / 2**n if first != second else 1 - ways[-1] / 2 ** (n + 1)
    assert mcnemar_mid_p(first, second) == pytest.approx(expected, abs=1e-10)
    assert mcnemar_mid_p(first, second) <= mcnemar_exact(first, second)


@settings(deadline=None, max_examples=12)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12, unique=True))
def test_holm_is_its_definition(p_values: list[float]) -> None:
    adjusted = list(holm(dict(enumerate(p_values))).values())
    assert adjusted == pytest.approx(reference_holm(p_values), abs=1e-10)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 500), st.data())
def test_wilson_is_that_of_scipy(n: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, n))
    expected = binomtest(count, n).proportion_ci(method="wilson")
    assert wilson_interval(count / n, n) == pytest.approx((expected.low, expected.high), abs=1e-10)
