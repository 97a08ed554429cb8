"""Crossed inference equals the dense reference and the libraries, and is never certain by accident."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from slow_statistics import reference_crossed
from statsmodels.stats.weightstats import ttost_paired

from batchscope.statistics.behrens_fisher import critical_value, upper_tail
from batchscope.statistics.components import chance_sd, components, seed_scatter
from batchscope.statistics.crossed import Estimate, moments, population, these_models, these_reviews
from batchscope.statistics.power import parts_of_variance, smallest_difference

RNG = np.random.default_rng(3)


def differences(seeds: int, reviews: int, shared: float = 0.0) -> np.ndarray:
    """Differences of −1, 0 and 1; with ``shared``, all seeds agree on some reviews."""
    d = RNG.choice([-1, 0, 1], (seeds, reviews), p=[0.1, 0.82, 0.08])
    everywhere = RNG.random(reviews) < shared
    d[:, everywhere] = RNG.choice([-1, 0, 1], everywhere.sum())
    return d.astype(np.int8)


@pytest.mark.parametrize(("seeds", "reviews", "shared"), [(2, 30, 0.0), (3, 41, 0.2), (5, 200, 0.1), (9, 60, 0.0)])
def test_the_closed_form_is_the_dense_reference(seeds: int, reviews: int, shared: float) -> None:
    d = differences(seeds, reviews, shared)
    found = population(moments(d))
    mean, error, df, covariance = reference_crossed(d)
    assert float(moments(d).covariance) == pytest.approx(covariance, abs=1e-10)
    assert float(found.difference) == pytest.approx(mean, abs=1e-10)
    assert float(found.standard_error) == pytest.approx(error, rel=1e-10)
    assert float(found.df) == pytest.approx(df, rel=1e-10)


def test_real_numbers_and_many_studies_at_once_give_the_same() -> None:
    studies = np.stack([differences(4, 50, 0.1) for _ in range(3)])
    together, as_floats = moments(studies), moments(studies.astype(np.float64))
    for field in ("difference", "seed_variance", "covariance", "variance"):
        alone = [float(getattr(moments(one), field)) for one in studies]
        assert getattr(together, field).tolist() == pytest.approx(alone, abs=1e-12)
        assert getattr(as_floats, field).tolist() == pytest.approx(alone, abs=1e-12)


def test_equivalence_is_that_of_statsmodels() -> None:
    one, other = RNG.normal(0.9, 0.01, 6), RNG.normal(0.9, 0.01, 6)
    means = (other - one)[:, None]
    found = these_reviews(moments(np.repeat(means, 4, axis=1)))
    expected = ttost_paired(other, one, -0.005, 0.005)[0]
    assert float(found.p_equivalence(0.005)) == pytest.approx(expected, abs=1e-10)


def test_seeds_that_agree_by_chance_are_not_certain() -> None:
    d = np.zeros((3, 100), dtype=np.int8)
    for seed in range(3):
        d[seed, seed] = 1
    found = population(moments(d))
    assert float(moments(d).seed_variance) == pytest.approx(0, abs=1e-30)
    by_chance = np.var(d[0], ddof=1) / 100 / 3
    assert float(found.standard_error) == pytest.approx(math.sqrt(by_chance), rel=1e-9)
    assert 0 < float(found.p_value()) < 1


def test_what_seeds_share_is_no_scatter_where_they_agree_by_chance() -> None:
    """Ten reviews that all seeds share, and five of its own for each: equal differences, a positive covariance."""
    d = np.zeros((3, 100), dtype=np.int8)
    d[:, :10] = 1
    for seed in range(3):
        d[seed, 10 + 5 * seed : 15 + 5 * seed] = 1
    found, (mean, error, df, covariance) = population(moments(d)), reference_crossed(d)
    assert covariance > 0.05
    assert (float(found.difference), float(found.standard_error)) == pytest.approx((mean, error), rel=1e-9)
    assert float(found.df) == pytest.approx(df, rel=1e-9)


def test_equal_predictions_are_no_difference_and_no_proof() -> None:
    d = np.zeros((3, 500), dtype=np.int8)
    for found in (population(moments(d)), these_reviews(moments(d)), these_models(moments(d[:1]))):
        low, high = found.interval()
        assert float(found.p_value()) == 1
        assert low < 0 < high


def test_two_seeds_have_one_degree_of_freedom() -> None:
    assert float(population(moments(differences(2, 300, 0.3))).df) == 1


@given(st.integers(2, 8), st.integers(20, 80), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_degrees_of_freedom_are_never_fewer_than_the_seeds_give(seeds: int, reviews: int, seed: int) -> None:
    d = np.random.default_rng(seed).integers(-1, 2, (seeds, reviews)).astype(np.int8)
    found = population(moments(d))
    assert float(found.df) >= seeds - 1 - 1e-9
    assert float(found.standard_error) >= float(these_reviews(moments(d)).standard_error) - 1e-12


def test_p_values_are_those_of_a_t_plus_a_normal_variable() -> None:
    """Against a million draws; and by Student's t where the reviews add nothing, by the normal where the seeds do."""
    rng = np.random.default_rng(0)
    drawn = np.abs(0.8 * rng.standard_t(2, 1_000_000) + 0.6 * rng.standard_normal(1_000_000))
    for x in (1.0, 4.0, 9.0):
        found = Estimate(np.array(x), np.array(0.64), np.array(0.36), 2.0, np.array(4.0))
        assert float(found.p_value()) == pytest.approx((drawn > x).mean(), rel=0.03)
    x = np.array([0.5, 3.0, 15.0])
    assert (2 * upper_tail(x, 1.0, 1e-14, 2.0)).tolist() == pytest.approx((2 * stats.t.sf(x, 2)).tolist(), rel=3e-5)
    assert upper_tail(x, 1e-14, 1.0, 3.0).tolist() == pytest.approx(stats.norm.sf(x).tolist(), rel=1e-5, abs=1e-12)
    assert (2 * upper_tail(x, 1.0, 0.0, 2.0)).tolist() == pytest.approx((2 * stats.t.sf(x, 2)).tolist(), abs=1e-12)


def test_a_critical_value_is_where_the_test_turns() -> None:
    found = critical_value(0.01, np.array([0.3, 0.0, 2.0]), np.array([1.0, 1.0, 0.0]), 3.0)
    assert (2 * upper_tail(found, [0.3, 0.0, 2.0], [1.0, 1.0, 0.0], 3.0)).tolist() == pytest.approx([0.01] * 3)
    for scale in (0.01, 100.0):
        scaled = critical_value(0.01, scale**2 * np.array([0.3, 0.0, 2.0]), scale**2 * np.array([1.0, 1.0, 0.0]), 3.0)
        assert scaled.tolist() == pytest.approx((scale * found).tolist(), rel=1e-6)
    assert float(critical_value(0.01, 0.5, 0.5, np.inf)) == pytest.approx(stats.norm.isf(0.005), rel=1e-6)
    for df in (1.0, 3.0):  # t's quantile, the upper bound, is 10⁸ times the normal one
        assert float(critical_value(1e-9, 0.0, 1.0, df)) == pytest.approx(stats.norm.isf(5e-10), rel=1e-6)


def test_seeds_that_differ_by_more_than_reviews_explain_have_no_residual() -> None:
    """One seed gets every review more right and the other none: the floor of one review is for equal seeds alone."""
    parts = components(moments(np.array([[1] * 50, [0] * 50], dtype=np.int8)))
    assert parts == pytest.approx((math.sqrt(0.5), 0.0, 0.0), abs=1e-12)


def test_components_are_found_again() -> None:
    rng, seeds, reviews = np.random.default_rng(1), 400, 4000
    d = rng.normal(0, 0.03, (seeds, 1)) + rng.normal(0, 0.2, reviews) + rng.normal(0, 0.5, (seeds, reviews))
    found = components(moments(d))
    assert found.seed == pytest.approx(0.03, rel=0.1)
    assert found.review == pytest.approx(0.2, rel=0.05)
    assert found.residual == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize("differing", [0, 1])
def test_models_that_predict_alike_in_every_seed_do_not_find_every_difference(seeds: int, differing: int) -> None:
    """The components give the standard error that the test uses, and never a power without limits."""
    d = np.zeros((seeds, 62), dtype=np.int8)
    d[:, :differing] = 1
    found = moments(d)
    parts = components(found)
    assert smallest_difference(parts, seeds, 62, 0.05, 0.8) > 0.02
    if seeds > 1:
        square = sum(parts_of_variance(parts, seeds, 62))
        assert math.sqrt(square) == pytest.approx(float(population(found).standard_error))


def test_a_stable_classifier_scatters_as_jordan_predicts() -> None:
    """Each review has its own probability; labels are drawn from it, and so is each seed's prediction."""
    rng, reviews, seeds = np.random.default_rng(5), 4000, 300
    probability = rng.beta(0.4, 0.4, reviews)
    labels = rng.random(reviews) < probability
    accuracies = ((rng.random((seeds, reviews)) < probability) == labels).mean(1)
    found = seed_scatter(accuracies, reviews)
    assert found.sd == pytest.approx(found.expected, rel=0.15)
    assert found.expected == pytest.approx(chance_sd(accuracies.mean(), reviews))
    assert found.p > 0.001
    assert seed_scatter(accuracies + rng.normal(0, 0.02, seeds), reviews).p < 1e-6


def test_the_scatter_of_seeds_is_held_against_chi_squared() -> None:
    found = seed_scatter([0.90, 0.92, 0.97], 450)
    expected = math.sqrt((1 - 0.93) / 900)
    sd = np.std([0.90, 0.92, 0.97], ddof=1)
    assert found == pytest.approx((sd, expected, stats.chi2.sf(2 * (sd / expected) ** 2, 2)), rel=1e-12)
    assert seed_scatter([0.7] * 3, 450).sd == 0, "not the rounding of a mean"
    assert seed_scatter([0.9], 450) == pytest.approx((math.nan, math.sqrt(0.1 / 900), math.nan), nan_ok=True)
    assert seed_scatter([1.0, 1.0], 450) == pytest.approx((0.0, 0.0, math.nan), nan_ok=True)


def test_components_below_zero_are_zero_and_of_one_seed_only_the_whole_is_known() -> None:
    d = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])  # the seeds exclude each other: a covariance of -1/12
    assert components(moments(d)) == pytest.approx((0.0, 0.0, 0.5), abs=1e-12)
    assert components(moments(d[:1])) == pytest.approx((math.nan, math.nan, 0.5), nan_ok=True)
    same = components(moments(np.repeat([[1, 0, 0, 0]], 3, axis=0)))
    assert same == pytest.approx((0.0, 0.5, 0.5), abs=1e-9)  # the residual of one differing review of four per seed


def test_one_pair_of_models_has_the_error_of_bonett_and_price() -> None:
    """Of 40 reviews 7 speak for one and 3 for the other; one is added to each: SE² = (p + q − (q − p)²)/(N + 2)."""
    d = np.repeat([1, -1, 0], [7, 3, 30])[None]
    found = these_models(moments(d))
    more, fewer = 8 / 42, 4 / 42
    assert float(found.standard_error) == pytest.approx(math.sqrt((more + fewer - (more - fewer) ** 2) / 42), rel=1e-12)
    assert float(found.difference) == pytest.approx(0.1) and np.isinf(found.df)
    low, high = found.interval(0.1)
    half = stats.norm.ppf(0.95) * found.standard_error
    assert (float(low), float(high)) == pytest.approx((0.1 - half, 0.1 + half), rel=1e-12)
    assert float(found.p_value()) == pytest.approx(2 * stats.norm.sf(0.1 / found.standard_error), rel=1e-12)
    with pytest.raises(ValueError, match=r"^this compares one pair of models, not 2$"):
        these_models(moments(np.repeat(d, 2, axis=0)))


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.float64])
def test_moments_of_opposite_reviews_in_closed_form(kind: type) -> None:
    """Half of 1,000 reviews +1, half −1, alike in 200 seeds: sums that no small integer holds."""
    d = np.tile(np.array([1, -1], dtype=kind), (200, 500))
    found = moments(d)
    assert found[:4] == pytest.approx((0.0, 0.0, 1000 / 999, 1000 / 999), rel=1e-12)
    assert (found.seeds, found.reviews) == (200, 1000)


def test_booleans_are_zeros_and_ones_and_large_values_lose_no_digits() -> None:
    right = RNG.random((3, 400)) < 0.6
    counted, shifted = moments(right.astype(np.int64)), moments(right + 1e8)
    assert [float(value) for value in moments(right)] == [float(value) for value in counted]
    for name in ("seed_variance", "covariance", "variance"):
        assert float(getattr(shifted, name)) == pytest.approx(float(getattr(counted, name)), rel=1e-4)
    assert np.isnan(moments(right[:1]).seed_variance) and np.isnan(moments(right[:1]).covariance)


def test_seeds_that_differ_by_one_review_of_many_do_scatter() -> None:
    d = np.zeros((3, 4000), dtype=np.int8)
    d[:, :400], d[0, 400] = 1, 1
    expected = np.var([1 / 4000, 0, 0], ddof=1)
    assert float(these_reviews(moments(d)).standard_error) == pytest.approx(math.sqrt(expected / 3), rel=1e-9)


def test_the_difference_is_that_of_the_metric_and_the_covariances_are_those_of_its_pseudo_values() -> None:
    pseudo, values = RNG.normal(size=(3, 50)), [0.1, 0.2, 0.6]
    found, plain = moments(pseudo, values), moments(pseudo)
    assert float(found.difference) == pytest.approx(0.3)
    assert float(found.seed_variance) == pytest.approx(np.var(values, ddof=1))
    assert (found.covariance, found.variance) == (plain.covariance, plain.variance)
