"""The jackknife interval of a ratio: a plain leave-one-block-out loop, and coverage with known truth."""

import numpy as np
import pytest
from scipy import stats

from batchscope.statistics.jackknife import GROUPS, ratio_intervals

LEFT = GROUPS - 1


def interval(numerator: np.ndarray, denominator: np.ndarray) -> tuple[float, float]:
    low, high = ratio_intervals(numerator, denominator, np.array([0]), np.array([len(numerator)]))
    return float(low[0]), float(high[0])


def reference_interval(numerator: np.ndarray, denominator: np.ndarray) -> tuple[float, float]:
    """Of blocks of unequal sizes, by the formulas of Busing et al. 1999, one block left out at a time."""
    n = len(numerator)
    blocks = [np.arange(n * i // GROUPS, n * (i + 1) // GROUPS) for i in range(GROUPS)]
    whole = denominator.sum() / numerator.sum()
    left_out = [np.delete(denominator, b).sum() / np.delete(numerator, b).sum() for b in blocks]
    sizes = [len(b) for b in blocks]
    centre = GROUPS * whole - sum((1 - m / n) * value for m, value in zip(sizes, left_out, strict=True))
    terms = [
        (n / m * whole - (n / m - 1) * value - centre) ** 2 / (n / m - 1)
        for m, value in zip(sizes, left_out, strict=True)
    ]
    half = stats.t.ppf(0.975, LEFT) * np.sqrt(np.mean(terms))
    return 1 / (whole + half), 1 / (whole - half) if whole > half else np.inf


@pytest.mark.parametrize("rows", [GROUPS, 37, 160])
def test_it_is_leaving_out_one_block_at_a_time(rows: int) -> None:
    rng = np.random.default_rng(rows)
    trace, square = rng.normal(200, 20, rows), rng.normal(1, 0.5, rows)
    expected = reference_interval(trace, square)
    assert interval(trace, square) == pytest.approx(expected, rel=1e-10)
    assert interval(1e-6 * trace, square) == pytest.approx(tuple(1e-6 * end for end in expected), rel=1e-10)


def test_for_equal_blocks_the_variance_is_the_usual_one() -> None:
    rng = np.random.default_rng(1)
    trace, square = rng.normal(200, 20, 10 * GROUPS), rng.normal(1, 0.5, 10 * GROUPS)
    blocks = np.split(np.arange(10 * GROUPS), GROUPS)
    left_out = np.array([np.delete(square, b).sum() / np.delete(trace, b).sum() for b in blocks])
    usual = (GROUPS - 1) / GROUPS * ((left_out - left_out.mean()) ** 2).sum()
    whole = square.sum() / trace.sum()
    half = stats.t.ppf(0.975, LEFT) * np.sqrt(usual)
    assert interval(trace, square) == pytest.approx((1 / (whole + half), 1 / (whole - half)), rel=0.02)


@pytest.mark.filterwarnings("error")
def test_stretches_are_as_if_each_were_alone() -> None:
    rng = np.random.default_rng(2)
    trace, square = rng.normal(200, 20, 90), rng.normal(1, 0.5, 90)
    starts, stops = np.array([0, 10, 40, 85]), np.array([50, 60, 90, 90])
    low, high = ratio_intervals(trace, square, starts, stops)
    for number in range(3):
        part = slice(starts[number], stops[number])
        assert (low[number], high[number]) == pytest.approx(interval(trace[part], square[part]), rel=1e-9)
    assert np.isnan([low[3], high[3]]).all(), "fewer rows than blocks"


def draws(rng: np.random.Generator, count: int, rows: int, correlation: float) -> np.ndarray:
    """Standard normal rows, each correlated with the one before it."""
    noise = rng.normal(size=(count, rows))
    for row in range(1, rows):
        noise[:, row] = correlation * noise[:, row - 1] + np.sqrt(1 - correlation**2) * noise[:, row]
    return noise


@pytest.mark.parametrize(("correlation", "signal", "least"), [(0, 0.2, 0.935), (0, 1.0, 0.935), (0.5, 1.0, 0.90)])
def test_it_covers_the_true_ratio(correlation: float, signal: float, least: float) -> None:
    """|G|² of 1 ± 1/signal per update and S of 200 ± 40, over 160 updates: 3,000 studies."""
    rng, count, rows = np.random.default_rng(3), 3000, 160
    square = 1 + draws(rng, count, rows, correlation).ravel() / signal
    trace = 200 + 40 * draws(rng, count, rows, correlation).ravel()
    starts = np.arange(count) * rows
    low, high = ratio_intervals(trace, square, starts, starts + rows)
    covered = np.mean((low <= 200) & (high >= 200))
    assert least < covered < 0.965


@pytest.mark.filterwarnings("error")
def test_there_is_no_upper_end_where_the_denominator_may_be_zero() -> None:
    rng = np.random.default_rng(4)
    low, high = interval(rng.normal(200, 20, 80), rng.normal(0.1, 3, 80))
    assert low > 0 and high == np.inf
    assert np.isnan(interval(np.full(80, 200.0), rng.normal(-9, 0.1, 80))).all()
