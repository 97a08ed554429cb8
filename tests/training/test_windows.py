"""Windows, orders and micro-batches are a pure function of their arguments and cover exactly what they should."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.training.spec import BudgetSpec, ValidationSpec
from batchscope.training.windows import (
    epoch_order,
    loss_scale,
    micro_batches,
    random_stream,
    stream_seed,
    update_at,
    validates_after,
    windows,
)

EXAMPLES = st.integers(1, 300)
BATCHES = st.integers(1, 300)


def reference_windows(examples, target, epochs):
    """Walk every example, one at a time."""
    found = []
    for epoch in range(1, epochs + 1):
        window = []
        for position in range(examples):
            window.append(position)
            if len(window) == target or position == examples - 1:
                found.append((epoch, window))
                window = []
    return found


@given(EXAMPLES, BATCHES, st.integers(1, 4))
def test_windows_hold_exactly_the_target_batch_and_the_tail_the_rest(examples, target, epochs):
    if target > examples:
        with pytest.raises(ValueError, match="above the"):
            list(windows(examples, target, BudgetSpec(epochs=epochs)))
        return
    plan = list(windows(examples, target, BudgetSpec(epochs=epochs)))
    assert [(w.epoch, list(range(w.start, w.stop))) for w in plan] == reference_windows(examples, target, epochs)
    assert [w.update for w in plan] == list(range(1, len(plan) + 1))
    assert [w.samples for w in plan] == np.cumsum([w.examples for w in plan]).tolist()
    assert [w.ends_epoch for w in plan] == [w.stop == examples for w in plan]


@given(EXAMPLES, BATCHES, st.integers(1, 50))
def test_a_budget_of_updates_or_samples_is_met_exactly(examples, target, amount):
    if target > examples:
        return
    by_updates = list(windows(examples, target, BudgetSpec(updates=amount)))
    assert len(by_updates) == amount and by_updates[-1].ends_epoch
    by_samples = list(windows(examples, target, BudgetSpec(samples=amount)))
    assert by_samples[-1].samples == amount and by_samples[-1].ends_epoch
    without_end = list(windows(examples, target, BudgetSpec(epochs=1 + amount // examples)))
    *before, last = without_end[: len(by_samples)]
    assert by_samples[:-1] == before
    assert by_samples[-1].start == last.start and by_samples[-1].stop <= last.stop


def test_dropped_tails_leave_full_windows_only():
    plan = list(windows(100, 32, BudgetSpec(epochs=2), tail="drop"))
    assert [w.examples for w in plan] == [32, 32, 32] * 2
    assert [w.ends_epoch for w in plan] == [False, False, True] * 2


@given(EXAMPLES, BATCHES, st.integers(1, 64))
def test_micro_batches_cut_a_window_without_gap_or_overlap(examples, target, physical):
    if target > examples:
        return
    for window in windows(examples, target, BudgetSpec(epochs=1)):
        pieces = list(micro_batches(window, physical))
        positions = [position for start, stop in pieces for position in range(start, stop)]
        assert positions == list(range(window.start, window.stop))
        assert all(stop - start == physical for start, stop in pieces[:-1])


def test_exact_scales_sum_to_one_over_the_window_and_naive_ones_do_not_in_a_tail():
    full, tail = windows(24, 16, BudgetSpec(epochs=1))
    for window in (full, tail):
        exact = sum(loss_scale(window, b - a, 16, "exact") * (b - a) for a, b in micro_batches(window, 4))
        assert exact == pytest.approx(1.0)
    naive = [sum(loss_scale(w, b - a, 16, "naive", 4) * (b - a) for a, b in micro_batches(w, 4)) for w in (full, tail)]
    assert naive == [1.0, 0.5]


def test_order_is_a_permutation_that_differs_by_seed_and_epoch_alone():
    order = epoch_order(1000, seed=1, epoch=1)
    assert sorted(order) == list(range(1000))
    assert np.array_equal(order, epoch_order(1000, seed=1, epoch=1))
    assert not np.array_equal(order, epoch_order(1000, seed=1, epoch=2))
    assert not np.array_equal(order, epoch_order(1000, seed=2, epoch=1))


def test_streams_of_different_purpose_are_independent():
    seeds = {stream_seed(seed, purpose, n) for seed in range(5) for purpose in ("order", "dropout") for n in range(50)}
    assert len(seeds) == 500


def test_orders_are_those_of_earlier_releases():
    """Another stream would be another training under the same fingerprint."""
    key = int.from_bytes(hashlib.sha256(b"3:order:2").digest()[:8], "little")
    assert stream_seed(3, "order", 2) == key
    order = np.random.Generator(np.random.Philox(key=key)).permutation(50)
    assert epoch_order(50, 3, 2).tolist() == order.tolist()


def test_the_naive_loss_divides_by_whole_accumulation_steps():
    (window,) = windows(5, 5, BudgetSpec(epochs=1))
    assert loss_scale(window, 2, 5, "naive", 2) == 1 / (2 * 3)


def test_a_stream_has_all_its_counters() -> None:
    key = int.from_bytes(hashlib.sha256(b"7:dropout:4:1").digest()[:8], "little")
    drawn = np.random.Generator(np.random.Philox(key=key)).random(3)
    assert random_stream(7, "dropout", 4, 1).random(3).tolist() == drawn.tolist()


def test_a_run_is_validated_at_the_end_of_its_epochs_and_every_so_many_updates() -> None:
    plan = list(windows(100, 32, BudgetSpec(epochs=2)))
    assert [w.update for w in plan if validates_after(w, None)] == [4, 8]
    assert [w.update for w in plan if validates_after(w, ValidationSpec(updates=3))] == [3, 4, 6, 8]


def test_an_update_is_found_by_the_samples_that_it_completes() -> None:
    plan = list(windows(100, 32, BudgetSpec(epochs=2)))  # ends at 32, 64, 96, 100, 132, 164, 196, 200
    assert [update_at(plan, samples) for samples in (0, 1, 32, 33, 100, 101, 200)] == [0, 1, 1, 2, 4, 5, 8]
    with pytest.raises(ValueError, match=r"^201 samples are beyond the end of the run, which sees 200$"):
        update_at(plan, 201)
