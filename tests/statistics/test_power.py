"""Power and what a study needs, against simulation and the textbook."""

import math

import numpy as np
import pytest
from scipy.stats import norm
from statsmodels.stats.power import TTestPower

from batchscope.config.claims import Claims
from batchscope.statistics.components import Components
from batchscope.statistics.conclusions import design, stable_components
from batchscope.statistics.crossed import moments, population
from batchscope.statistics.power import reviews_needed, seeds_needed, smallest_difference
from batchscope.statistics.verdicts import Needs, needs, verdict

PARTS = Components(seed=0.002, review=0.1, residual=0.3)


@pytest.mark.parametrize("seeds", [2, 3, 7])
def test_where_the_reviews_add_nothing_it_is_the_one_sample_t_test(seeds: int) -> None:
    found = smallest_difference(Components(0.1, 0.0, 0.0), seeds, 100, 0.05, 0.8)
    expected = TTestPower().solve_power(nobs=seeds, alpha=0.05, power=0.8)
    assert found == pytest.approx(0.1 * expected, rel=1e-3)


def test_with_one_seed_it_is_the_z_test_of_what_the_reviews_show() -> None:
    """What one seed cannot show counts as nothing. At a power near the level, both directions count."""
    for wanted in (0.06, 0.8):
        shift = smallest_difference(Components(math.nan, math.nan, 0.3), 1, 400, 0.05, wanted) / (0.3 / 20)
        assert norm.sf(norm.isf(0.025) - shift) + norm.cdf(-norm.isf(0.025) - shift) == pytest.approx(wanted, rel=1e-4)
    assert smallest_difference(Components(0.0, 0.0, 0.0), 3, 400, 0.05, 0.8) == 0
    assert seeds_needed(PARTS, 1.0, 1, 400, 0.05, 0.8) == 2, "one seed does not show how seeds scatter"


def test_the_smallest_difference_is_found_with_the_wanted_power() -> None:
    """By simulation: normal data with these components, tested as a study's."""
    rng, seeds, reviews = np.random.default_rng(0), 5, 400
    difference = smallest_difference(PARTS, seeds, reviews, 0.05, 0.8)
    d = difference + rng.normal(0, PARTS.seed, (3000, seeds, 1)) + rng.normal(0, PARTS.review, (3000, 1, reviews))
    d += rng.normal(0, PARTS.residual, (3000, seeds, reviews))
    found = (population(moments(d)).p_value() < 0.05).mean()
    assert found == pytest.approx(0.8, abs=0.03)


def test_what_is_needed_is_just_enough() -> None:
    seeds = seeds_needed(PARTS, 0.02, 2, 400, 0.05, 0.8)
    assert smallest_difference(PARTS, seeds, 400, 0.05, 0.8) <= 0.02
    assert smallest_difference(PARTS, seeds - 1, 400, 0.05, 0.8) > 0.02
    reviews = reviews_needed(PARTS, 0.02, 3, 400, 0.05, 0.8)
    assert smallest_difference(PARTS, 3, reviews, 0.05, 0.8) <= 0.02
    assert smallest_difference(PARTS, 3, reviews - 1, 0.05, 0.8) > 0.02


@pytest.mark.parametrize("count", range(3, 12))
def test_the_number_needed_is_the_smallest_whole_one(count: int) -> None:
    just = smallest_difference(PARTS, count, 400, 0.05, 0.8) * (1 + 1e-5)
    assert seeds_needed(PARTS, just, 2, 400, 0.05, 0.8) == count
    just = smallest_difference(PARTS, 3, 100 * count + 1, 0.05, 0.8) * (1 + 1e-5)
    assert reviews_needed(PARTS, just, 3, 100, 0.05, 0.8) == 100 * count + 1


def test_no_number_is_enough_where_the_other_side_limits() -> None:
    """Review × batch alone gives SE = .1/√400; the margin is below 2.8 of it. And the seeds alone .05/√3."""
    assert math.isinf(seeds_needed(PARTS, 0.013, 2, 400, 0.05, 0.8))
    assert math.isinf(reviews_needed(PARTS._replace(seed=0.05), 0.02, 3, 400, 0.05, 0.8))


def test_a_stable_classifiers_design() -> None:
    """At 90.5% and 5,000 reviews a cell's seeds have an SD of √(.095/10,000) = .308 points, a difference √2 of it."""
    made = design(stable_components(0.905), 1, 5000, Claims())
    assert made.smallest_points == pytest.approx((1.959964 + 0.841621) * 100 * math.sqrt(0.095 / 5000), rel=1e-4)
    more = design(stable_components(0.905), 5, 5000, Claims())
    assert more.smallest_points < made.smallest_points
    assert design(stable_components(0.905), 5, 5000, Claims(), contrasts=10).smallest_points > more.smallest_points


def test_needs_are_what_lacks_beyond_the_seeds_and_reviews_at_hand() -> None:
    claims, asked = Claims(margin=2, level=0.1, power=0.7), (3, 400, 0.025, 0.7)
    found = needs(PARTS, 3, 400, claims, contrasts=4)
    assert found.smallest == smallest_difference(PARTS, *asked) > 0.02
    assert found.more_seeds == seeds_needed(PARTS, 0.02, *asked) - 3 > 0
    assert found.more_reviews == reviews_needed(PARTS, 0.02, *asked) - 400 > 0 and math.isfinite(found.more_reviews)
    fixed = needs(PARTS, 3, 400, claims, contrasts=4, fixed=True)
    assert math.isnan(fixed.more_seeds) and fixed.more_reviews == found.more_reviews
    assert needs(PARTS, 60, 4000, claims, contrasts=4)[1:] == (0, 0)
    lacking = [verdict(0.3, 0.3, Needs(0.1, 0.0, reviews), 0.05, faulty=False) for reviews in (0.0, 1.0)]
    assert lacking == ["undecided", "underpowered"]


@pytest.mark.parametrize(
    ("p", "p_equivalence", "smallest", "faulty", "said"),
    [
        (0.01, 0.9, 0.001, False, "different"),
        (0.01, 0.9, 0.001, True, "did not learn"),
        (0.01, 0.01, 0.001, False, "different"),
        (0.3, 0.01, 0.001, False, "equivalent"),
        (0.3, 0.3, 0.1, False, "underpowered"),
        (0.3, 0.3, 0.001, False, "undecided"),
        (0.05, 0.05, 0.001, False, "undecided"),
    ],
)
def test_verdicts_in_their_order(p: float, p_equivalence: float, smallest: float, faulty: bool, said: str) -> None:
    parts = Components(0.0, 0.0, smallest)
    needed = needs(parts, 5, 16, Claims(), 1)
    assert verdict(p, p_equivalence, needed, 0.05, faulty) == said
