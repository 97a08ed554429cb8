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


def test_a_reported_count_is_itself_and_no_batch_has_more_right_than_reviews() -> None:
    cell = counted(7, 10)
    assert countable(cell)[:5] == (cell, True, 7, 7, None)
    # Batches of 3 and 2: means of 5/6 and 1, and none between them.
    assert countable(reported(0.9, examples=5, decimals=1, evaluation_batch=3)).mean_of_batches is False


@pytest.mark.parametrize(("first", "second"), [(17, 9), (9, 17), (12, 12), (20, 2), (19, 18), (1, 0)])
def test_mcnemar_is_bounded_by_the_tables_with_these_margins(first: int, second: int) -> None:
    n = 20
    tables = [(b, b - (first - second)) for b in range(n + 1)]
    tables = [(b, c) for b, c in tables if c >= 0 and b <= first and c <= second and first - b + b + c <= n]
    p_of = {b + c: mcnemar_exact(b, c) for b, c in tables}
    for level in (0.05, *p_of.values()):
        bounds = mcnemar_bounds(countable(counted(first, n)), countable(counted(second, n)), level)
        assert bounds.most_discordant == max((b_c for b_c, p in p_of.items() if p < level), default=None)
    assert bounds.fewest_discordant == min(p_of)
    assert bounds.best_p == p_of[min(p_of)] == min(p_of.values())
    assert bounds.independent_p == p_of[bounds.independent_discordant]
    expected = (first * (n - second) + second * (n - first)) / n
    assert abs(bounds.independent_discordant - max(expected, abs(first - second))) <= 1


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
    assert (first.se_points, first.seeds, first.examples) == (pytest.approx(100 * error), 1, 5000)
    assert [(row.level_from, row.level_to) for row in found[2:4]] == [("256", "1024"), ("constant", "sqrt")]


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


def test_runs_that_are_the_same_under_two_policies_are_compared_once() -> None:
    cells = [
        reported(value, batch=batch, policy=policy, learning_rate=5e-5)
        for policy in ("constant", "sqrt")
        for batch, value in ((64, 0.92), (256, 0.90))
    ]
    assert [(row.factor, row.policy) for row in contrasts(cells, 0.05)] == [("batch", "constant")]


def test_seeds_are_paired_by_number_and_do_not_make_more_reviews() -> None:
    pairs = {1: (906, 880), 2: (905, 889), 3: (899, 885), 4: (903, 882), 5: (902, 879)}
    cells = [
        counted(k, 1000, batch=b, seed=s) for s, both in pairs.items() for b, k in zip((16, 64), both, strict=True)
    ]
    (found,) = contrasts(list(reversed(cells)), 0.05)
    differences = [(large - small) / 1000 for small, large in pairs.values()]
    assert found.seeds == 5 and found.difference_points == pytest.approx(100 * np.mean(differences))
    assert found.sd_seed_points == pytest.approx(100 * np.std(differences, ddof=1))
    assert found.p_seeds == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    typical = mcnemar_bounds(countable(counted(903, 1000)), countable(counted(882, 1000)), 0.05)
    assert found[-5:] == typical, "of the runs with the median accuracies"
    (alone,) = contrasts([counted(903, 1000, batch=16), counted(883, 1000, batch=64)], 0.05)
    assert found.se_points == pytest.approx(alone.se_points, rel=0.01) and np.isnan(alone.p_seeds)


@pytest.mark.parametrize("first", [(0.8, 0.7), (0.95, 0.9)])
def test_two_seeds_with_equal_differences_do_not_make_certain(first: tuple[float, float]) -> None:
    """0.78 − 0.80 and 0.68 − 0.70 differ as floats."""
    cells = [
        reported(round(value - drop, 2), batch=batch, seed=seed)
        for seed, value in enumerate(first)
        for batch, drop in ((16, 0.0), (64, 0.02))
    ]
    (found,) = contrasts(cells, 0.05)
    assert found.sd_seed_points == 0 and np.isnan(found.p_seeds)
    (apart,) = contrasts([*cells[:3], reported(first[1] - 0.03, batch=64, seed=1)], 0.05)
    assert apart.sd_seed_points == pytest.approx(100 * 0.01 / np.sqrt(2)) and 0 < apart.p_seeds < 1


def test_equal_perfect_runs_do_not_differ() -> None:
    (found,) = contrasts([counted(10, 10, batch=16), counted(10, 10, batch=64)], 0.05)
    assert (found.z, found.p, found.most_discordant) == (0, 1, None)
    (opposite,) = contrasts([counted(10, 10, batch=16), counted(0, 10, batch=64)], 0.05)
    assert (opposite.z, opposite.p) == (-np.inf, 0)


def test_the_trend_is_the_weighted_least_squares_line() -> None:
    sizes, values = [16, 64, 1024], [0.93, 0.90, 0.86]
    (found,) = trends([reported(value, batch=size) for size, value in zip(sizes, values, strict=True)])
    weight = np.sqrt([5000 / (v * (1 - v)) for v in values])
    coefficients, covariance = np.polyfit(np.log2(sizes), values, 1, w=weight, cov="unscaled")
    assert found.slope_points == pytest.approx(100 * coefficients[0])
    assert found.se_points == pytest.approx(100 * np.sqrt(covariance[0, 0]))
    z = found.slope_points / found.se_points
    assert (found.z, found.p, found.p_holm) == pytest.approx((z, *[2 * stats.norm.sf(abs(z))] * 2))
    assert trends([reported(0.9), reported(0.8, batch=16)]) == []


def test_holm_counts_the_trends_of_a_study() -> None:
    """Two trends of one study, one of another, and first a model of two batch sizes, which has none."""
    cells = [reported(0.9, model="short"), reported(0.8, model="short", batch=16)]
    slopes = [("one", "bert", "constant", 0.01), ("two", "bert", "constant", 0.01), ("one", "bert", "sqrt", 0.002)]
    for study, model, policy, slope in slopes:
        cells += [
            reported(0.9 - slope * step, study=study, model=model, policy=policy, batch=16 * 2**step)
            for step in range(3)
        ]
    found = trends(cells)
    assert [(row.study, row.model, row.policy, row.batches) for row in found] == [
        (*place, "16, 32, 64") for *place, _ in slopes
    ]
    steep, other, flat = found
    assert flat.p == pytest.approx(2 * stats.norm.sf(abs(flat.z))) and 0.01 < flat.p < 0.9
    assert (steep.p_holm, other.p_holm) == (pytest.approx(2 * steep.p), other.p) and steep.p < flat.p == flat.p_holm


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
    shares = np.array(correct) / 5000
    square = ((shares - shares.mean()) ** 2).sum() / (error / 10000)
    assert found.same_reviews_p == pytest.approx(stats.chi2.sf(square, 2))
    assert (found.what, found.runs, found.mean) == ("bert, batch 64, constant", 3, pytest.approx(1 - error))
    assert found.chance_sd_points == pytest.approx(100 * np.sqrt(error * (1 - error) / 5000))


def test_scatter_takes_two_runs_and_perfect_ones_do_not_scatter() -> None:
    runs = [counted(k, 10, batch=8, study=s, learning_rate=5e-5) for s, k in (("x", 10), ("y", 10))]
    (found,) = scatter_of_runs([reported(0.9), *runs])
    assert (found.what, found.runs, found.q, found.p) == ("bert, batch 8, LR 5e-05", 2, 0, 1)
    assert np.isnan(found.same_reviews_p)


def test_scatter_by_chance_is_rarely_called_more_than_chance() -> None:
    rng = np.random.default_rng(5)
    draws = rng.binomial(5000, 0.91, (2000, 4))
    p = [scatter_of_runs([counted(int(k), 5000, study=str(i)) for i, k in enumerate(row)])[0].p for row in draws]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=2 * np.sqrt(0.05 * 0.95 / 2000))


def test_scatter_of_contrasts_is_cochrans_q() -> None:
    cells = [reported(a, study=s, batch=b) for s, b, a in [("x", 16, 0.9), ("x", 64, 0.88), ("y", 16, 0.9)]]
    rows = contrasts([*cells, reported(0.91, study="y", batch=64)], 0.05)
    once = contrasts([reported(0.9, model="lone"), reported(0.8, model="lone", batch=16)], 0.05)
    (found,) = scatter_of_contrasts([*once, *rows])
    values, weights = [r.difference_points for r in rows], [r.se_points**-2 for r in rows]
    centre = np.average(values, weights=weights)
    assert found.mean == pytest.approx(centre)
    assert found.q == pytest.approx(sum(w * (v - centre) ** 2 for v, w in zip(values, weights, strict=True)))
    assert found.p == pytest.approx(stats.chi2.sf(found.q, 1))
    assert (found.what, found.runs, found.df) == ("bert, constant, batch 16 → 64", 2, 1)
    assert found.sd_points == pytest.approx(np.std(values, ddof=1))
    assert found.chance_sd_points == pytest.approx(np.sqrt(np.mean([row.se_points**2 for row in rows])))
    assert np.isnan([found.same_reviews_sd_points, found.same_reviews_p]).all()
