"""The F test over all batch sizes: a table worked by hand, the dense reference, and its special case of two sizes."""

import math

import numpy as np
import pytest
from scipy import stats
from slow_statistics import reference_omnibus

from batchscope.report.spec import GridCell
from batchscope.statistics.crossed import moments, population
from batchscope.statistics.omnibus import omnibus, trend, trends
from batchscope.statistics.records import Trend

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


@pytest.mark.parametrize(
    ("reviews", "shared", "own"),
    [(90, 10, (5, 5, 5)), (90, 0, (5, 5, 5)), (90, 10, (0, 0, 0)), (3000, 0, (1, 1, 2))],
    ids=["some shared", "none shared", "all shared", "one review more"],
)
def test_it_is_so_where_seeds_agree_by_chance(reviews: int, shared: int, own: tuple[int, ...]) -> None:
    """Reviews that the larger batch alone gets right: some in all seeds, and some of each seed's own."""
    rng = np.random.default_rng(3)
    correct = np.repeat(rng.random((1, 3, reviews)) < rng.random(reviews), 2, axis=0)
    correct[0, :, :shared], correct[1, :, :shared] = False, True
    for seed, count in enumerate(own):
        mine = slice(shared + 5 * seed, shared + 5 * seed + count)
        correct[0, seed, mine], correct[1, seed, mine] = False, True
    single, found = population(moments(correct[1].astype(np.int8) - correct[0].astype(np.int8))), omnibus(correct)
    assert found.f == pytest.approx(float(single.difference / single.standard_error) ** 2, rel=1e-9)
    assert found.df2 == pytest.approx(float(single.df), rel=1e-9)


def test_f_of_three_sizes_that_agree_by_chance_is_the_dense_reference() -> None:
    """The second size gets two more reviews right than the first in every seed, the third five more; each its own."""
    rng = np.random.default_rng(9)
    correct = np.repeat(rng.random((1, 4, 70)) < 0.6, 3, axis=0)
    for level, more in ((1, 2), (2, 5)):
        for seed in range(4):
            wrong = np.flatnonzero(~correct[level, seed])
            correct[level, seed, rng.choice(wrong, more, replace=False)] = True
    found, (f, df2) = omnibus(correct), reference_omnibus(correct)
    assert (found.f, found.df2) == pytest.approx((f, df2), rel=1e-9)


def test_the_trend_is_the_least_squares_slope() -> None:
    rng = np.random.default_rng(4)
    correct = rng.random((3, 2, 200)) < np.array([0.9, 0.8, 0.75])[:, None, None]
    expected = np.polyfit(np.log2([16, 64, 1024]), correct.mean((1, 2)), 1)[0]
    assert float(trend(correct, [16, 64, 1024]).difference) == pytest.approx(expected, abs=1e-12)
    assert float(trend(correct, [16, 64, 1024]).df) == 1, "of two seeds"
    one = trend(correct[:, :1], [16, 64, 1024])
    assert math.isinf(float(one.df))
    assert 0 < float(one.p_value()) < 1


def test_equal_accuracies_are_not_certain() -> None:
    correct = np.zeros((3, 3, 30), dtype=bool)
    correct[:, :, :20] = True
    assert omnibus(correct).p == 1


def grid(sizes: list[int], seeds: list[int], **own: str) -> list[GridCell]:
    """The cells of one model, policy and budget, in the order given."""
    facts = {"model": "m", "policy": "p", "budget": "b"} | own
    name, rest = "-".join(facts.values()), {"learning_rate": 1e-4, "shared": False}
    return [
        GridCell(batch=size, seed=seed, run=f"{name}-{size}-{seed}", **facts, **rest)
        for size in sizes
        for seed in seeds
    ]


def test_a_row_is_of_all_batch_sizes_ascending_and_of_the_seeds_that_all_have() -> None:
    rng = np.random.default_rng(6)
    full = [*grid([256, 64], [1, 2, 3]), *grid([1024], [2, 3, 4])]
    alone = [*grid([64], [1, 2], model="n"), *grid([64], [1], policy="q"), *grid([256], [2], policy="q")]
    one_seed = grid([64, 256], [5], budget="c")
    correct = {cell.run: rng.random(60) < 0.8 for cell in (*full, *alone, *one_seed)}
    faulty = ["m-p-b-1024-3", "m-p-b-64-3", "m-p-b-64-1"]
    row, single = trends([*full, *alone, *one_seed], correct, faulty)
    stacked = np.array([[correct[f"m-p-b-{size}-{seed}"] for seed in (2, 3)] for size in (64, 256, 1024)])
    found, slope = omnibus(stacked), trend(stacked, [64, 256, 1024])
    low, high = (100 * float(end) for end in slope.interval())
    points = (100 * float(slope.difference), 100 * float(slope.standard_error), float(slope.df), low, high)
    expected = ("m", "p", "b", "64 256 1024", 2, 60, *found, *points, float(slope.p_value()), "m-p-b-64-3 m-p-b-1024-3")
    assert row == Trend(*expected)
    assert (single.budget, single.batch_sizes, single.seeds, single.df1, single.faulty) == ("c", "64 256", 1, 1.0, "")
    assert np.isnan([single.f, single.df2, single.p]).all() and single.p_slope > 0


def test_the_slope_of_one_seed_has_the_error_of_its_reviews_and_never_none() -> None:
    """Two sizes: half the paired difference per factor of four; without disagreement, that of one review."""
    rng = np.random.default_rng(8)
    correct = rng.random((2, 1, 50)) < 0.8
    difference = correct[1, 0].astype(int) - correct[0, 0]
    error = np.std(difference, ddof=1) / 2 / math.sqrt(50)
    assert float(trend(correct, [64, 256]).standard_error) == pytest.approx(error, rel=1e-12)
    equal = trend(np.repeat(correct[:1], 3, axis=0), [64, 128, 256])
    assert float(equal.standard_error) == pytest.approx(0.5 / 50, rel=1e-12)
