"""What a study's contrasts come to: which count, which is the largest, what the design can establish."""

import math

import pytest

from batchscope.config.claims import Claims
from batchscope.statistics.components import Components
from batchscope.statistics.conclusions import (
    conclude,
    design,
    stable_components,
    typical_components,
    with_verdict,
)
from batchscope.statistics.power import reviews_needed, seeds_needed, smallest_difference
from batchscope.statistics.records import Finding


def finding(difference: float, factor: str = "batch_size", estimand: str = "population", **own: object) -> Finding:
    """A contrast of which only these fields are read."""
    blank = dict.fromkeys(Finding._fields, math.nan) | {"faulty": ""}
    return Finding(**blank | {"factor": factor, "estimand": estimand, "difference_points": difference} | own)  # type: ignore


def test_the_largest_difference_is_one_of_batch_sizes_whose_runs_learned() -> None:
    small, large = finding(1.0), finding(-2.0)
    others = [finding(3.0, faulty="run"), finding(4.0, "model"), finding(9.0, estimand="these_reviews")]
    found = conclude([small, *others, large])
    assert found is not None and found.largest is large
    assert found.claims == [small, *others[:2], large] and found.of_batch_sizes() == [small, others[0], large]
    assert not found.one_seed


def test_without_batch_sizes_the_largest_is_one_of_all_and_without_sound_runs_there_is_none() -> None:
    of_models = [finding(1.0, "model"), finding(-4.0, "lr_policy")]
    found = conclude(of_models)
    assert found is not None and found.largest is of_models[1] and found.of_batch_sizes() == []
    faulty = conclude([finding(1.0, faulty="run")])
    assert faulty is not None and faulty.largest is None
    assert conclude([]) is None and conclude([finding(1.0, estimand="these_reviews")]) is None
    one_seed = conclude([finding(1.0, estimand="these_models")])
    assert one_seed is not None and one_seed.one_seed
    assert with_verdict([finding(1.0, verdict="different"), finding(2.0)], "different") == [
        finding(1.0, verdict="different")
    ]


def test_typical_components_are_medians_of_sound_contrasts_over_seeds_as_shares() -> None:
    def of(seed: float, review: float, residual: float, **own: object) -> Finding:
        return finding(0.0, sd_seed=seed, sd_review=review, sd_residual=residual, **own)

    found = [of(1, 30, 10), of(2, 10, 20), of(9, 20, 60), of(99, 99, 99, faulty="run")]
    assert typical_components(found) == pytest.approx((0.02, 0.2, 0.2))
    alone = [of(1, 1, 1, estimand="these_reviews"), of(1, 1, 1, estimand="these_models"), found[-1]]
    assert typical_components(alone) is None


def test_a_design_is_at_the_strictest_level_of_the_family_in_points() -> None:
    parts, claims = Components(0.004, 0.1, 0.3), Claims(margin=2, level=0.1, power=0.7)
    found = design(parts, 3, 400, claims, contrasts=5)
    asked = (3, 400, 0.02, 0.7)
    assert found[:4] == (3, 400, 5, parts)
    assert found.smallest_points == pytest.approx(100 * smallest_difference(parts, *asked))
    assert found.seeds_for_margin == seeds_needed(parts, 0.02, *asked) > 3
    assert found.reviews_for_margin == reviews_needed(parts, 0.02, *asked) > 400
    assert design(parts, 3, 400, claims).contrasts == 1


def test_stable_classifiers_differ_by_their_residual_alone() -> None:
    assert stable_components(0.9) == pytest.approx((0.0, 0.0, math.sqrt(0.1)))
