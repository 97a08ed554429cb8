"""Intervals, tests and corrections against slow references."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slow_statistics import reference_holm, reference_mcnemar

from batchscope.statistics.paired import holm, mcnemar_exact, wilson_interval


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_enumeration(first: int, second: int) -> None:
    assert mcnemar_exact(first, second) == pytest.approx(reference_mcnemar(first, second), rel=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12, unique=True))
def test_holm_is_its_definition(p_values: list[float]) -> None:
    adjusted = holm(dict(enumerate(p_values)))
    assert [adjusted[i] for i in range(len(p_values))] == pytest.approx(reference_holm(p_values))


@given(st.integers(1, 500), st.floats(0.01, 0.99))
def test_wilson_ends_where_the_score_test_would_just_reject(n: int, accuracy: float) -> None:
    for end in wilson_interval(accuracy, n):
        assert abs(accuracy - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / n), rel=1e-5)
