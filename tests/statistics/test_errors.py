"""Errors by hand: margins, verdicts, flips and groups of lengths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscope.statistics.errors import LENGTH_GROUPS, RunOfReviews, flips, length_groups, margins, verdicts


def test_margins_are_those_of_the_label_against_the_best_other_class() -> None:
    logits = np.array([[3.0, 1.0, 2.0], [0.0, 0.0, -1.0], [-5.0, 4.0, 1.0]])
    assert margins(logits, np.array([0, 1, 0])) == pytest.approx([1.0, 0.0, -9.0])
    right = logits.argmax(1) == np.array([0, 1, 1])
    assert ((margins(logits, np.array([0, 1, 1])) > 0) <= right).all()


def test_verdicts() -> None:
    wrong = np.array([[True, True, False], [True, False, False]])
    assert verdicts(wrong) == ["always", "sometimes", "never"]


def test_flips_pair_batch_sizes_within_a_seed_and_seeds_within_a_batch_size() -> None:
    runs = [
        RunOfReviews(batch, seed, np.array([batch == 16, seed == 1, True], dtype=np.int64))
        for batch in (16, 64)
        for seed in (1, 2)
    ]
    of_batch, of_seed = flips(runs)
    assert [pair[:2] for pair in of_batch] == [(1, 1), (2, 2)] and [pair[:2] for pair in of_seed] == [(1, 2)] * 2
    assert all(pair.divergence.tolist() == [1, 0, 0] for pair in of_batch)
    assert all(pair.divergence.tolist() == [0, 1, 0] for pair in of_seed)


def test_lengths_make_four_groups_of_equal_size() -> None:
    assert length_groups(np.arange(80)[::-1]) == [(0, 19), (20, 39), (40, 59), (60, 79)]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=80))
def test_groups_of_lengths_hold_every_length_once(lengths: list[int]) -> None:
    groups = length_groups(np.array(lengths))
    assert 1 <= len(groups) <= LENGTH_GROUPS
    assert all(sum(low <= length <= high for low, high in groups) == 1 for length in lengths)
