"""The choice of the micro-batch: the fastest one, the smaller one in a tie, and none of its time in the updates'."""

import itertools
import time

import pytest
import torch
from small import train_settings

from batchscope.files import read_json
from batchscope.training import run
from batchscope.training.accumulate import ManualEngine
from batchscope.training.autotune import fastest_micro_batch, seconds_of
from batchscope.training.loop import train

CPU = torch.device("cpu")
LONG = 10**9
"""Examples of a training that has time for any trial."""


def test_the_fastest_micro_batch_is_found_and_memory_ends_the_search():
    def seconds(size):
        if size > 64:
            raise torch.OutOfMemoryError
        return 1.0 + size / 100

    assert fastest_micro_batch(seconds, 1024, 10**9)[0] == 64
    assert fastest_micro_batch(seconds, 40, 10**9)[0] == 32
    assert fastest_micro_batch(lambda size: size * (1 + abs(size - 16)), 1024, 10**9)[0] == 16
    assert fastest_micro_batch(seconds, 5, 10**9)[0] == 5


def test_a_short_training_is_not_searched_for_longer_than_it_gains():
    slowly = lambda size: size / (100 + size)  # noqa: E731
    quickly = lambda size: size / size**0.9  # noqa: E731
    assert list(fastest_micro_batch(slowly, 64, 0)[1]) == ["8", "16"]
    assert list(fastest_micro_batch(slowly, 64, 10**9)[1]) == ["8", "16", "32", "64"]
    assert list(fastest_micro_batch(quickly, 64, 0)[1]) == ["8", "16", "32", "64"], "each size is worth its trial"


def timings(rates_by_size):
    """Seconds for a size at these rates, one after the other; the last one for ever."""
    rates = {size: itertools.chain(found, itertools.repeat(found[-1])) for size, found in rates_by_size.items()}
    return lambda size: size / next(rates[size])


@pytest.mark.parametrize(
    ("rates_of_16", "chosen"),
    [
        ([108, 100, 101, 99], 8),  # its first timing was luck
        ([96, 110], 16),  # its first timing was bad luck
        ([104], 16),  # a little faster each time
        ([101], 8),  # a tie
        ([120, 50], 16),  # far ahead of the others: not timed again
    ],
)
def test_sizes_that_are_about_as_fast_are_timed_again_in_turns(rates_of_16, chosen):
    found, rates = fastest_micro_batch(timings({8: [100], 16: rates_of_16, 32: [50], 64: [50]}), 64, LONG)
    assert found == chosen
    assert list(rates) == ["8", "16", "32", "64"][: len(rates)]


def test_a_short_training_times_nothing_again():
    calls = []

    def seconds(size):
        calls.append(size)
        time.sleep(0.002)
        return size / 100

    fastest_micro_batch(seconds, 16, 16)
    assert calls == [8, 16]


@pytest.mark.parametrize(("seconds", "twice", "expected"), [(0.0, False, 4), (0.6, False, 1), (0.6, True, 2)])
def test_slow_work_is_done_again_only_where_there_is_time(monkeypatch, seconds, twice, expected):
    clock, calls = itertools.count(0, seconds), []
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert seconds_of(lambda: calls.append(1), CPU, twice) == pytest.approx(seconds)
    assert len(calls) == expected


def test_the_trial_is_no_part_of_the_updates_time(small_study, tmp_path, monkeypatch):
    choose, trial = run.choose_micro_step, 1.0

    def choose_slowly(*arguments, **keywords):
        time.sleep(trial)
        choose(*arguments, **keywords)

    monkeypatch.setattr(run, "choose_micro_step", choose_slowly)
    spec = small_study.spec("bert", budget={"updates": 2})
    train(spec, "code", train_settings(), small_study.tokens("bert"), tmp_path / "run", tmp_path / "state")
    facts = read_json(tmp_path / "run/train.json")
    assert facts["trial"]["seconds"] >= trial > facts["training_seconds"]
    assert facts["samples_per_second"] == pytest.approx(facts["samples"] / facts["training_seconds"])


def test_a_micro_batch_that_does_not_fit_is_halved_before_the_first_update(small_study, tmp_path, monkeypatch):
    """On CUDA the trial of the graph is the first to run out of memory."""
    prepare, tried = ManualEngine.prepare, []

    def too_large(self, batch, autocast, kind):
        tried.append(len(batch.label))
        if tried[-1] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return prepare(self, batch, autocast, kind)

    monkeypatch.setattr(ManualEngine, "prepare", too_large)
    spec, tokens = small_study.spec("bert", budget={"updates": 1}), small_study.tokens("bert")
    settings = train_settings(physical_batch_size=32)
    train(spec, "code", settings, tokens, tmp_path / "run", tmp_path / "state")
    assert tried == [16, 8, 4], "a window has 16 examples"
    assert read_json(tmp_path / "run/train.json")["physical_batch_size"] == 4

    naive = small_study.spec("bert", tail="naive", physical_batch_size=8)
    with pytest.raises(torch.OutOfMemoryError):
        train(naive, "code", settings, tokens, tmp_path / "naive", tmp_path / "state")
