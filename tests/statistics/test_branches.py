"""The measured critical batch size: losses on the same examples, and the largest branch that is as good as the run."""

import fabricate
import numpy as np
import pytest

from batchscope.statistics.branches import CriticalBatch, critical_batch
from batchscope.training.records import BranchPoint


def point_of(**losses: float | None) -> BranchPoint:
    """A point of a run of batch size 16 with branches of constant loss: ``x4=0.5``."""
    by_factor = {int(name[1:]): loss for name, loss in losses.items()}
    return fabricate.branches_file(16, by_factor)["points"][0]


def found(smoothing: float = 0.5, tolerance: float = 0.01, **losses: float | None) -> CriticalBatch:
    return critical_batch(point_of(**losses), smoothing, tolerance)


@pytest.mark.parametrize(
    ("losses", "factor", "reached"),
    [
        ({"x1": 0.40, "x2": 0.40, "x4": 0.409, "x8": 0.42}, 4, True),
        ({"x1": 0.40, "x2": 0.42, "x4": 0.43}, 1, True),
        ({"x1": 0.40, "x2": 0.38, "x4": 0.39}, 4, False),
        ({"x1": 0.40, "x2": 0.41001, "x4": 0.405}, 4, False),
        ({"x1": 0.40, "x2": 0.40, "x4": None}, 2, True),
        ({"x1": 0.40}, 1, False),
    ],
)
def test_it_is_the_largest_branch_as_good_as_the_run(losses: dict, factor: int, reached: bool) -> None:
    critical = found(**losses)
    assert (critical.factor, critical.target_batch_size, critical.reached) == (factor, 16 * factor, reached)


def test_the_tolerance_and_the_diverged() -> None:
    one, two, four = found(x1=0.4, x2=0.405, x4=None).losses
    assert one.within and one.difference == pytest.approx(0, abs=1e-12)
    assert two.within and two.difference == pytest.approx(0.005)
    assert not found(x1=0.4, x2=0.405, tolerance=0.004).losses[1].within
    assert four.diverged and not four.within and four.difference == np.inf and np.isnan(four.loss)


@pytest.mark.parametrize("smoothing", [0.01, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("factor", [2, 3, 8])
def test_losses_are_means_over_the_same_examples_at_the_end(factor: int, smoothing: float) -> None:
    """Against a list of single examples, with windows cut short by the end of an epoch."""
    rng = np.random.default_rng(factor)
    sizes = {1: [16] * 10 + [5] + [16] * 9, factor: []}
    for epoch in (sizes[1][:11], sizes[1][11:]):
        sizes[factor] += [sum(epoch[i : i + factor]) for i in range(0, len(epoch), factor)]
    losses = {k: rng.normal(0.4, 0.1, len(own)) for k, own in sizes.items()}
    branches = []
    for k, own in sizes.items():
        ends = 64 + np.cumsum(own)
        updates = [
            {"samples": int(end), "examples": size, "loss": loss, "lr": 1e-3}
            for end, size, loss in zip(ends, own, losses[k], strict=True)
        ]
        branches.append({"factor": k, "target_batch_size": 16 * k, "diverged": False, "updates": updates})
    point: BranchPoint = {"at": 64, "update": 4, "samples": 64, "state": "kept", "branches": branches}  # type: ignore
    loss = critical_batch(point, smoothing, 0.01).losses[1]

    each = {k: np.repeat(losses[k], own) for k, own in sizes.items()}
    window = np.repeat(np.arange(len(sizes[factor])), sizes[factor])
    since = len(window) * (1 - smoothing)
    whole = [w for w in np.unique(window) if np.flatnonzero(window == w)[0] >= since - 1e-9] or [window[-1]]
    chosen = np.isin(window, whole)
    assert loss.windows == len(whole)
    assert loss.loss == pytest.approx(each[factor][chosen].mean())
    assert loss.loss_of_run == pytest.approx(each[1][chosen].mean())
    assert loss.difference == pytest.approx((each[factor] - each[1])[chosen].mean())


def test_the_standard_error_is_that_of_the_windows() -> None:
    """Independent windows of one size: the difference scatters as its standard error says, 1,500 draws."""
    rng, windows, errors, differences = np.random.default_rng(0), 8, [], []
    for _ in range(1500):
        point = point_of(x1=0.4, x2=0.4)
        for update in point["branches"][1]["updates"]:
            update["loss"] = float(rng.normal(0.4, 0.1))
        loss = critical_batch(point, 0.5, 0.01).losses[1]
        errors.append(loss.standard_error**2)
        differences.append(loss.difference)
    assert loss.windows == windows
    assert np.sqrt(np.mean(errors)) == pytest.approx(np.std(differences), rel=0.08)
    assert np.isnan(found(x1=0.4, x16=0.4).losses[1].standard_error)


def test_two_windows_are_enough_for_a_standard_error() -> None:
    """Differences of 0.1 and 0.3: their sample SD is 0.2 / √2, and the mean of two has the error 0.1."""
    point = point_of(x1=0.4, x4=0.4)
    for update, loss in zip(point["branches"][1]["updates"][-2:], (0.5, 0.7), strict=True):
        update["loss"] = loss
    loss = critical_batch(point, 0.25, 0.01).losses[1]
    assert (loss.windows, loss.difference, loss.standard_error) == pytest.approx((2, 0.2, 0.1))


def test_a_branch_is_described_by_its_last_update_and_one_on_the_tolerance_is_within() -> None:
    one, four, lost = found(x1=0.5, x4=0.75, x8=None, tolerance=0.25).losses
    assert (four.factor, four.target_batch_size, four.updates, four.windows) == (4, 64, 8, 4)
    assert (one.learning_rate, four.learning_rate) == pytest.approx((1e-3, 2e-3))
    assert (four.loss, four.loss_of_run, four.difference, four.within) == (0.75, 0.5, 0.25, True)
    assert (lost.updates, lost.windows, lost.within) == (1, 0, False)
    assert np.isnan([lost.loss, lost.loss_of_run, lost.standard_error]).all() and lost.learning_rate > 2e-3
    point = point_of(x1=0.5, x2=None)
    point["branches"][1]["updates"] = []
    assert np.isnan(critical_batch(point, 0.5, 0.01).losses[1].learning_rate)
