"""Reported accuracies: what a count can print as, what a contrast shows, held against enumeration."""

from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from batchscope.statistics.forensics import (
    Reported,
    contrasts,
    countable,
    mcnemar_bounds,
    scatter_of_contrasts,
    scatter_of_runs,
    trends,
)
from batchscope.statistics.paired import mcnemar_exact

ROUNDINGS = (ROUND_HALF_EVEN, ROUND_HALF_UP, ROUND_DOWN)


def reported(accuracy: float, **changes) -> Reported:
    """A reported run of 5,000 reviews with four decimals."""
    plain = {"study": "one", "model": "bert", "policy": "constant", "batch": 64, "learning_rate": None, "seed": None}
    plain |= {"examples": 5000, "test_set": "one", "decimals": 4, "evaluation_batch": None}
    return Reported(accuracy=accuracy, **(plain | changes))


def counted(correct: int, examples: int, **changes) -> Reported:
    """A run of which the count itself is reported."""
    return reported(correct / examples, examples=examples, decimals=None, **changes)


def prints(value: Fraction, decimals: int) -> set[Decimal]:
    """What a share prints as, rounded either way or cut."""
    exact = Decimal(value.numerator) / Decimal(value.denominator)
    return {exact.quantize(Decimal(1).scaleb(-decimals), rounding) for rounding in ROUNDINGS}


def reference_counts(printed: Decimal, decimals: int, n: int) -> list[int]:
    return [k for k in range(n + 1) if printed in prints(Fraction(k, n), decimals)]


def reference_mean_of_batches(printed: Decimal, decimals: int, n: int, batch: int) -> bool:
    sizes = [batch] * (n // batch) + ([n % batch] if n % batch else [])
    last = sizes[-1]
    means = (
        (Fraction(others, batch) + Fraction(in_last, last)) / len(sizes)
        for others in range(n - last + 1)
        for in_last in range(last + 1)
    )
    return any(printed in prints(mean, decimals) for mean in means)


@given(n=st.integers(2, 60), decimals=st.integers(1, 3), printed=st.integers(0, 1000), batch=st.integers(1, 30))
def test_counts_are_those_that_print_so(n: int, decimals: int, printed: int, batch: int) -> None:
    printed %= 10**decimals + 1
    text = Decimal(printed).scaleb(-decimals)
    found = countable(reported(float(text), examples=n, decimals=decimals, evaluation_batch=batch))
    expected = reference_counts(text, decimals, n)
    assert found.possible == bool(expected)
    if expected:
        assert (found.fewest, found.most) == (expected[0], expected[-1])
    else:
        assert found.most == found.fewest + 1 and found.fewest / n < float(text) < found.most / n
    assert found.mean_of_batches == reference_mean_of_batches(text, decimals, n, batch)


@pytest.mark.parametrize(("first", "second"), [(17, 9), (9, 17), (12, 12), (20, 2), (19, 18), (1, 0)])
def test_mcnemar_is_bounded_by_the_tables_with_these_margins(first: int, second: int) -> None:
    n, level = 20, 0.05
    tables = [(b, b - (first - second)) for b in range(n + 1)]
    tables = [(b, c) for b, c in tables if c >= 0 and b <= first and c <= second and first - b + b + c <= n]
    p_of = {b + c: mcnemar_exact(b, c) for b, c in tables}
    bounds = mcnemar_bounds(countable(counted(first, n)), countable(counted(second, n)), level)
    assert bounds.fewest_discordant == min(p_of)
    assert bounds.best_p == p_of[min(p_of)] == min(p_of.values())
    assert bounds.most_discordant == max((b_c for b_c, p in p_of.items() if p < level), default=None)
    assert bounds.independent_p == p_of[bounds.independent_discordant]


def test_a_contrast_is_that_of_two_independent_binomials_and_holm_counts_a_factor_of_a_study() -> None:
    accuracies = {64: 0.92, 256: 0.90, 1024: 0.89}
    cells = [reported(value, batch=batch) for batch, value in accuracies.items()]
    cells += [reported(0.91, batch=64, policy="sqrt"), reported(0.8, study="two"), reported(0.7, study="two", batch=8)]
    found = contrasts(cells, 0.05)
    assert [(r.study, r.factor, r.batch) for r in found] == [
        ("one", "batch", "64 → 256"),
        ("one", "batch", "64 → 1024"),
        ("one", "batch", "256 → 1024"),
        ("one", "policy", "64"),
        ("two", "batch", "8 → 64"),
    ]
    first = found[0]
    error = np.sqrt(0.92 * 0.08 / 5000 + 0.9 * 0.1 / 5000)
    assert first.z == pytest.approx(-0.02 / error) and first.p == pytest.approx(2 * stats.norm.cdf(-0.02 / error))
    assert (first.low_points, first.high_points) == pytest.approx(
        [100 * (-0.02 + sign * stats.norm.ppf(0.975) * error) for sign in (-1, 1)]
    )
    smallest = min(found[:3], key=lambda row: row.p)
    assert smallest.p_holm == pytest.approx(3 * smallest.p) and smallest.comparisons == 3
    assert found[3].p_holm == found[3].p


def test_a_run_reported_under_two_policies_counts_once() -> None:
    cells = [
        reported(value, batch=batch, policy=policy, learning_rate=rate)
        for policy, batch, rate, value in [
            ("constant", 64, 5e-5, 0.92),
            ("sqrt", 64, 5e-5, 0.92),
            ("constant", 256, 5e-5, 0.90),
            ("sqrt", 256, 1e-4, 0.91),
        ]
    ]
    found = contrasts(cells, 0.05)
    assert [(row.factor, row.policy, row.batch) for row in found] == [
        ("batch", "constant", "64 → 256"),
        ("batch", "sqrt", "64 → 256"),
        ("policy", "constant → sqrt", "256"),
    ]
    assert scatter_of_runs(cells) == []


def test_seeds_are_paired_by_number_and_do_not_make_more_reviews() -> None:
    pairs = {1: (900, 880), 2: (905, 889), 3: (899, 882)}
    cells = [
        counted(k, 1000, batch=b, seed=s) for s, both in pairs.items() for b, k in zip((16, 64), both, strict=True)
    ]
    (found,) = contrasts(list(reversed(cells)), 0.05)
    differences = [(large - small) / 1000 for small, large in pairs.values()]
    assert found.seeds == 3 and found.difference_points == pytest.approx(100 * np.mean(differences))
    assert found.p_seeds == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    (alone,) = contrasts([counted(901, 1000, batch=16), counted(884, 1000, batch=64)], 0.05)
    assert found.se_points == pytest.approx(alone.se_points, rel=0.01) and np.isnan(alone.p_seeds)


def test_equal_perfect_runs_do_not_differ() -> None:
    (found,) = contrasts([counted(10, 10, batch=16), counted(10, 10, batch=64)], 0.05)
    assert (found.z, found.p, found.most_discordant) == (0, 1, None)


def test_the_trend_is_the_weighted_least_squares_line() -> None:
    sizes, values = [16, 64, 1024], [0.93, 0.90, 0.86]
    (found,) = trends([reported(value, batch=size) for size, value in zip(sizes, values, strict=True)])
    weight = np.sqrt([5000 / (v * (1 - v)) for v in values])
    coefficients, covariance = np.polyfit(np.log2(sizes), values, 1, w=weight, cov="unscaled")
    assert found.slope_points == pytest.approx(100 * coefficients[0])
    assert found.se_points == pytest.approx(100 * np.sqrt(covariance[0, 0]))
    assert trends([reported(0.9), reported(0.8, batch=16)]) == []


def test_scatter_of_equal_runs_is_the_chi_squared_test_of_homogeneity() -> None:
    correct = [4602, 4542, 4590]
    cells = [counted(k, 5000, study=str(number), test_set="same") for number, k in enumerate(correct)]
    (found,) = scatter_of_runs(cells)
    table = [correct, [5000 - k for k in correct]]
    expected = stats.chi2_contingency(table, correction=False)
    assert (found.q, found.df, found.p) == pytest.approx((expected.statistic, expected.dof, expected.pvalue))
    assert found.sd_points == pytest.approx(np.std(np.array(correct) / 50, ddof=1))
    error = 1 - sum(correct) / 15000
    assert found.same_reviews_sd_points == pytest.approx(100 * np.sqrt(error / 10000))
    (apart,) = scatter_of_runs([cell._replace(test_set=cell.study) for cell in cells])
    assert np.isnan(apart.same_reviews_sd_points) and np.isnan(apart.same_reviews_p)


def test_scatter_by_chance_is_rarely_called_more_than_chance() -> None:
    rng = np.random.default_rng(5)
    draws = rng.binomial(5000, 0.91, (2000, 4))
    p = [scatter_of_runs([counted(int(k), 5000, study=str(i)) for i, k in enumerate(row)])[0].p for row in draws]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=2 * np.sqrt(0.05 * 0.95 / 2000))


def test_scatter_of_contrasts_is_cochrans_q() -> None:
    cells = [reported(a, study=s, batch=b) for s, b, a in [("x", 16, 0.9), ("x", 64, 0.88), ("y", 16, 0.9)]]
    rows = contrasts([*cells, reported(0.91, study="y", batch=64)], 0.05)
    (found,) = scatter_of_contrasts(rows)
    values, weights = [r.difference_points for r in rows], [r.se_points**-2 for r in rows]
    centre = np.average(values, weights=weights)
    assert found.mean == pytest.approx(centre)
    assert found.q == pytest.approx(sum(w * (v - centre) ** 2 for v, w in zip(values, weights, strict=True)))
    assert found.p == pytest.approx(stats.chi2.sf(found.q, 1))
