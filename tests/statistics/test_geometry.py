"""Pairs, barriers, CKA and rank correlations: closed forms, a slow reference, and simulated studies of known truth."""

import fabricate
import numpy as np
import pytest
from scipy import stats

from batchscope.statistics import geometry
from batchscope.statistics.geometry import association, barrier, excludes_zero, linear_cka, pairs_of_runs


def cells_of(batches: list[int], seeds: list[int]):
    spec = fabricate.spec(
        models={"bert": {"architecture": "bert"}},
        lr_policies={"constant": {"base_lr": 1e-3}},
        target_batch_sizes=batches,
        seeds=seeds,
    )
    return spec.cells


def test_batch_sizes_are_compared_with_the_smallest_and_seeds_with_each_other() -> None:
    cells = cells_of([64, 16, 256], [1, 2])
    found = [(pair.kind, cells[pair.first], cells[pair.second]) for pair in pairs_of_runs(cells, 99)]
    across = [(one.batch, two.batch, one.seed == two.seed) for kind, one, two in found if kind == "batch sizes"]
    between = [(one.batch == two.batch, one.batch, one.seed, two.seed) for kind, one, two in found if kind == "seeds"]
    assert across == [(16, 64, True), (16, 256, True)] * 2
    assert between == [(True, size, 1, 2) for size in (16, 64, 256)]


def test_a_limit_leaves_no_batch_size_out_before_it_leaves_out_seeds() -> None:
    cells = cells_of([16, 64, 256], [1, 2, 3])
    found = pairs_of_runs(cells, 3)
    assert [pair.kind for pair in found] == ["batch sizes"] * 3 + ["seeds"] * 3
    assert {cells[pair.second].batch for pair in found if pair.kind == "seeds"} == {16, 64, 256}
    assert pairs_of_runs(cells[:1], 9) == []
    assert [pair.kind for pair in pairs_of_runs(cells_of([16, 64], [1]), 9)] == ["batch sizes"]
    assert [pair.kind for pair in pairs_of_runs(cells_of([16], [1, 2]), 9)] == ["seeds"]


def test_the_barrier_is_the_rise_above_the_line_between_the_ends() -> None:
    at = np.linspace(0, 1, 5)
    assert barrier(at, 1 + 2 * at) == (0.0, 0.0)
    assert barrier(at, np.full(5, 0.3)) == (0.0, 0.0)
    found = barrier(at, np.array([1.0, 2.0, 4.0, 2.0, 3.0]))
    assert found == (2.0, 0.5)
    assert barrier(at, 1 - at * (1 - at)).height == 0, "a valley is no barrier"


def test_features_are_alike_up_to_rotation_scale_and_shift() -> None:
    dice = np.random.default_rng(0)
    features = dice.normal(size=(60, 5))
    turned = np.linalg.qr(dice.normal(size=(5, 5)))[0]
    assert linear_cka(features, features) == pytest.approx(1)
    assert linear_cka(features, 3 * features @ turned + 7) == pytest.approx(1)
    assert linear_cka(features, 1e-6 * features) == pytest.approx(1)
    for equal in (np.ones((60, 4)), np.full((60, 4), 0.1), np.full((60, 4), 0.1, dtype=np.float32)):
        assert np.isnan(linear_cka(features, equal)) and np.isnan(linear_cka(equal, equal))
    # Kornblith et al.: the same from the Gram matrices, with H = I − 1/N.
    other = dice.normal(size=(60, 7)) + np.pad(features, ((0, 0), (0, 2)))
    h = np.eye(60) - 1 / 60
    hsic = lambda k, l: np.trace(k @ h @ l @ h)  # noqa: E731, E741
    one, two = features @ features.T, other @ other.T
    assert linear_cka(features, other) == pytest.approx(hsic(one, two) / np.sqrt(hsic(one, one) * hsic(two, two)))


def reference(measure: np.ndarray, accuracy: np.ndarray, lr_sum: np.ndarray) -> float:
    """Partial rank correlation as that of the residuals of two regressions on the ranks of ΣLR."""
    ranks = [stats.rankdata(column) for column in (measure, accuracy, lr_sum)]
    left = [column - np.polyval(np.polyfit(ranks[2], column, 1), ranks[2]) for column in ranks[:2]]
    return float(np.corrcoef(*left)[0, 1])


def test_correlations_are_those_of_scipy_and_of_residuals() -> None:
    dice = np.random.default_rng(3)
    lr_sum = np.repeat(dice.normal(size=6), 3)
    accuracy = lr_sum + dice.normal(size=18)
    measure = np.round(lr_sum + accuracy + dice.normal(size=18), 0)
    found = association(measure, accuracy, lr_sum)
    assert found.accuracy == pytest.approx(stats.spearmanr(measure, accuracy).statistic)
    assert found.lr_sum == pytest.approx(stats.spearmanr(measure, lr_sum).statistic)
    assert found.partial == pytest.approx(reference(measure, accuracy, lr_sum))
    assert found.accuracy_low < found.accuracy < found.accuracy_high
    assert found.partial_low < found.partial < found.partial_high
    assert association(measure, accuracy, lr_sum) == found, "the draws are the same"


def test_a_correlation_is_at_most_one() -> None:
    """Sums of ranks that are rounded give 1 + 4e-16 here."""
    dice = np.random.default_rng(6)
    measure = dice.normal(size=12)
    lr_sum = measure + dice.normal(size=12)
    assert association(measure, measure, lr_sum).partial == 1
    assert association(measure, -measure, lr_sum).partial == -1


def test_there_is_no_interval_where_one_run_makes_the_correlation() -> None:
    """A third of the draws leave it out, and then the measure is constant."""
    found = association(np.eye(1, 10)[0], np.arange(10.0), np.arange(10.0)[::-1] ** 2 % 7)
    assert -1 < found.accuracy < 0 and np.isnan([found.accuracy_low, found.accuracy_high, found.partial_low]).all()


def test_an_interval_needs_a_correlation_in_nine_of_ten_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draw without the last two of ten runs has none: so many draws that exactly a tenth are, and one more."""
    without = (np.random.default_rng(geometry.DRAW_SEED).integers(10, size=(400, 10)) < 8).all(1).cumsum()
    border = next(draws for draws in range(10, 400, 10) if 10 * without[draws - 1] == draws)
    beyond = next(draws for draws in range(10, 400) if 10 * without[draws - 1] > draws)
    for draws, told in ((border, True), (beyond, False)):
        monkeypatch.setattr(geometry, "DRAWS", draws)
        found = association(np.array([0.0] * 8 + [1.0, 2.0]), np.arange(10.0), np.arange(10.0)[::-1] ** 2 % 7)
        assert np.isfinite([found.accuracy_low, found.accuracy_high]).all() == told


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_told_is_not_a_number() -> None:
    ordered = np.arange(10.0)
    itself = association(ordered, ordered**2, ordered)
    assert itself.accuracy == pytest.approx(1) and np.isnan([itself.partial, itself.partial_low]).all()
    assert np.isnan(association(np.ones(10), ordered, ordered)).all()
    assert excludes_zero(0.1, 0.4) and excludes_zero(-0.4, -0.1) and not excludes_zero(-0.1, 0.1)
    assert not excludes_zero(0.0, 0.4) and not excludes_zero(-0.4, 0.0)


def test_intervals_hold_the_truth_about_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies of 18 runs in which ΣLR alone moves sharpness and accuracy: the partial correlation is near 0.

    The correlation without ΣLR must not be 0 there, and one that is not explained by ΣLR must be found.
    """
    monkeypatch.setattr(geometry, "DRAWS", 200)
    dice = np.random.default_rng(0)
    held, found, plain = 0, 0, 0
    for _ in range(100):
        lr_sum = dice.normal(size=18)
        accuracy, sharpness = (1.5 * lr_sum + dice.normal(size=18) for _ in range(2))
        null = association(sharpness, accuracy, lr_sum)
        held += not excludes_zero(null.partial_low, null.partial_high)
        plain += excludes_zero(null.accuracy_low, null.accuracy_high)
        told = association(sharpness, accuracy - 3 * (sharpness - 1.5 * lr_sum), lr_sum)
        found += told.partial_high < 0
    assert 0.85 <= held / 100 <= 0.99
    assert plain > 80 and found > 90
