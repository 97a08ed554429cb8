"""Intervals, tests and corrections against the libraries and slow references."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from slow_statistics import reference_holm, reference_mcnemar
from statsmodels.stats.contingency_tables import mcnemar

from batchscope.report.spec import GridCell
from batchscope.statistics.paired import (
    Pair,
    batch_size_pairs,
    binomial_standard_error,
    holm,
    mcnemar_exact,
    mcnemar_mid_p,
    wilson_interval,
)


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


def test_the_standard_error_is_that_of_single_answers() -> None:
    answers = np.repeat([1.0, 0.0], [27, 9])
    assert binomial_standard_error(0.75, 36) == pytest.approx(answers.std() / 6, rel=1e-12)


def test_a_family_of_no_tests_has_no_p() -> None:
    assert holm({}) == {}


def test_pairs_are_the_smaller_and_the_larger_batch_of_one_model_policy_budget_and_seed() -> None:
    """Counted by hand: of ten reviews the small batch alone gets 1 right and the large one alone 4."""
    facts = {"learning_rate": 1e-4, "shared": False}
    places = [("m", 256, "p", "b", 1), ("m", 64, "p", "b", 1)]
    places += [("n", 64, "p", "b", 1), ("m", 64, "q", "b", 1), ("m", 64, "p", "c", 1), ("m", 64, "p", "b", 2)]
    cells = [
        GridCell(model=m, batch=n, policy=p, budget=b, seed=s, run=f"{m}{n}{p}{b}{s}", **facts)
        for m, n, p, b, s in places
    ]
    correct = {cell.run: np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], dtype=bool) for cell in cells}
    correct["m256pb1"] = np.array([0, 1, 1, 1, 1, 1, 1, 0, 0, 0], dtype=bool)
    (found,) = batch_size_pairs(cells, correct)
    p_exact, p_mid = 2 * 6 / 32, 2 * (6 - 2.5) / 32
    assert (found.mcnemar_p, found.mcnemar_mid_p) == pytest.approx((p_exact, p_mid), rel=1e-12)
    expected = Pair("m", "p", "b", 1, 64, 256, "m64pb1", "m256pb1", 10, 0.3, 0.6, 30.0, 1, 4, 0.0, 0.0)
    assert found._replace(mcnemar_p=0.0, mcnemar_mid_p=0.0) == expected
