"""Whatever ends a training, the next start ends with the bytes of an undisturbed one."""

import dataclasses
import json
import math
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from batchscope.errors import UserError
from batchscope.files import read_json
from batchscope.provenance.fingerprint import file_hash
from batchscope.training.accumulate import ManualEngine
from batchscope.training.loop import train
from batchscope.training.memory import fastest_micro_batch
from batchscope.training.stop import Stopped, StopRequest, deadline

FILES = ("history.jsonl", "checkpoints/best.safetensors", "checkpoints/last.safetensors")
SETTINGS = {"physical_batch_size": 6, "device": "cpu", "save_every": 0}  # a state after every update
KILLS = {("bert", "manual"): 7, ("bert", "accelerate"): 6, ("modernbert", "manual"): 6, ("modernbert", "accelerate"): 6}


def train_in(folder, spec, tokens, settings=None, **keywords):
    train(spec, "code", settings or SETTINGS, tokens, folder / "run", folder / "state", **keywords)
    return {name: file_hash(folder / "run" / name) for name in FILES}


def train_in_process(folder, spec, tokens, save_gate):
    """The target of a child process; touches ``save_gate`` while a state is being written."""
    torch.set_num_threads(1)
    original = torch.save

    def save(*arguments, **keywords):
        save_gate.touch()
        original(*arguments, **keywords)
        save_gate.unlink()

    torch.save = save
    train(spec, "code", SETTINGS, tokens, folder / "run", folder / "state")


@pytest.fixture(scope="module")
def processes():
    """Fresh processes that need not import torch again."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["batchscope.training.loop"])
    return context


@pytest.mark.parametrize(("architecture", "engine"), KILLS)
def test_killed_at_random_moments_it_ends_with_the_same_bytes(small_study, tmp_path, processes, architecture, engine):
    spec = small_study.spec(architecture, engine=engine, budget={"epochs": 3})
    tokens = small_study.tokens(architecture)
    whole = train_in(tmp_path / "whole", spec, tokens)
    dice, gate = random.Random(f"{architecture} {engine}"), tmp_path / "saving"
    killed = during_a_save = 0
    while killed < KILLS[architecture, engine]:
        process = processes.Process(target=train_in_process, args=(tmp_path / "cut", spec, tokens, gate))
        process.start()
        states = tmp_path / "cut/state"
        before = newest_state(states)
        give_up = time.monotonic() + 120
        while newest_state(states) == before and process.is_alive() and time.monotonic() < give_up:
            time.sleep(0.002)  # it has made some way
        if killed % 3 == 0:
            while not gate.exists() and process.is_alive():
                pass  # this one dies while it writes
        else:
            time.sleep(dice.uniform(0, 0.05))
        assert process.is_alive(), "the run is too short for its kills"
        process.kill()
        process.join()
        killed += 1
        during_a_save += gate.exists()
        gate.unlink(missing_ok=True)
    resumed = train_in(tmp_path / "cut", spec, tokens)
    assert resumed == whole
    assert during_a_save >= 1
    assert not list((tmp_path / "cut/state").iterdir())


def newest_state(states: Path) -> str:
    return max((path.name for path in states.glob("*/state-*.pt")), default="")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_within_a_micro_batch_and_the_next_start_goes_on(small_study, tmp_path, monkeypatch, number):
    spec, tokens = small_study.spec("bert"), small_study.tokens("bert")
    whole = train_in(tmp_path / "whole", spec, tokens, SETTINGS | {"save_every": 1e9})
    seen = []

    def signal_in_the_second_micro_batch(self, batches, autocast):
        observe, self.observe = self.observe, lambda position, batch: (count(position), observe(position, batch))

        def count(position):
            seen.append(position)
            if len(seen) == 3 * 5 + 2:
                os.kill(os.getpid(), number)

        try:
            return accumulate(self, batches, autocast)
        finally:
            self.observe = observe

    accumulate = ManualEngine.accumulate
    monkeypatch.setattr(ManualEngine, "accumulate", signal_in_the_second_micro_batch)
    with pytest.raises(Stopped, match=f"after update 5 of 24: received {number.name}"):
        train_in(tmp_path / "cut", spec, tokens, SETTINGS | {"save_every": 1e9})
    assert len(seen) == 17, "it stopped with the micro-batch in which the signal came"
    monkeypatch.undo()
    assert train_in(tmp_path / "cut", spec, tokens) == whole


def test_it_stops_before_its_deadline_and_the_next_start_goes_on(small_study, tmp_path):
    spec, tokens = small_study.spec("bert"), small_study.tokens("bert")
    whole = train_in(tmp_path / "whole", spec, tokens)
    seen = []

    def slow(record):
        seen.append(record)
        time.sleep(0.2)

    limit = time.time() + 3  # a quarter of it is held in reserve, until the first saved state tells what that takes
    with pytest.raises(Stopped, match="the wall-time limit is"):
        train_in(tmp_path / "cut", spec, tokens, observe=slow, deadline=limit)
    assert 0 < len(seen) < 20 and time.time() < limit
    assert train_in(tmp_path / "cut", spec, tokens) == whole


def test_the_deadline_is_slurms_or_the_rules(monkeypatch):
    for name in ("SLURM_JOB_END_TIME", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    assert deadline(None, 100.0) is None
    assert deadline(2, 100.0) == 220.0
    assert deadline(math.inf, 100.0) == math.inf
    monkeypatch.setenv("SLURM_JOB_END_TIME", "170")
    assert deadline(2, 100.0) == 170.0


SQUEUE = """#!/bin/sh
[ "$SLURM_TIME_FORMAT $*" = "%s --noheader --format=%e --jobs=$WANTED" ] && echo "$END"
"""


def test_without_the_variable_slurms_controller_is_asked_for_the_deadline(monkeypatch, tmp_path, caplog):
    """SLURM before 23.02 does not set it, and Snakemake's executor drops it."""
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert deadline(2, 100.0) == 220.0
    assert "does not say when this job ends" in caplog.text
    (tmp_path / "squeue").write_text(SQUEUE)
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("WANTED", "12")
    monkeypatch.setenv("END", "170")
    assert deadline(2, 100.0) == 170.0
    monkeypatch.setenv("END", "NONE")
    assert deadline(2, 100.0) == 220.0, "a job without a limit"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "10")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("WANTED", "10_3")
    monkeypatch.setenv("END", "180")
    assert deadline(2, 100.0) == 180.0


def test_short_limits_are_not_eaten_up_by_the_reserve():
    now = time.time()
    assert StopRequest(None).reserve == StopRequest(now + 3600).reserve == 30
    assert 9 < StopRequest(now + 40).reserve <= 10
    assert StopRequest(now - 5).reason() is not None


def test_handlers_are_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_out_of_memory_halves_the_micro_batch_and_leaves_the_windows(small_study, tmp_path, monkeypatch):
    """A CUDA error, raised where a CPU would have none: the handling is the same."""
    spec, tokens = small_study.spec("bert", noise_scale="off"), small_study.tokens("bert")
    accumulate = ManualEngine.accumulate

    def too_large(self, batches, autocast):
        if max(len(batch.label) for batch in batches) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return accumulate(self, batches, autocast)

    monkeypatch.setattr(ManualEngine, "accumulate", too_large)
    halved = train_in(tmp_path / "halved", spec, tokens, SETTINGS | {"physical_batch_size": 16})
    monkeypatch.undo()
    assert read_json(tmp_path / "halved/run/manifest.json")["physical_batch_size"] == 4
    assert halved == train_in(tmp_path / "small", spec, tokens, SETTINGS | {"physical_batch_size": 4})


def test_one_review_that_does_not_fit_is_the_users_to_mend(small_study, tmp_path, monkeypatch):
    def never(self, batches, autocast):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ManualEngine, "accumulate", never)
    with pytest.raises(UserError, match="micro-batch of one review"):
        train_in(tmp_path, small_study.spec("bert"), small_study.tokens("bert"))


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


def test_auto_is_recorded_and_kept_over_a_restart(small_study, tmp_path):
    spec, tokens = small_study.spec("bert"), small_study.tokens("bert")
    settings = SETTINGS | {"physical_batch_size": "auto"}

    def cut(record):
        if record["update"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path / "cut", spec, tokens, settings, observe=cut)
    train_in(tmp_path / "cut", spec, tokens, settings | {"physical_batch_size": 3})
    size = read_json(tmp_path / "cut/run/manifest.json")["physical_batch_size"]
    assert size in (8, 16), "the one that was found, not the one asked for after the restart"
    whole = train_in(tmp_path / "whole", spec, tokens, SETTINGS | {"physical_batch_size": size})
    assert whole == {name: file_hash(tmp_path / "cut/run" / name) for name in FILES}


def test_the_reviews_with_a_loss_that_is_not_finite_are_named(small_study, tmp_path, monkeypatch):
    spec, tokens = small_study.spec("bert"), small_study.tokens("bert")
    from batchscope.model.classifier import TextClassifier

    forward, poisoned = TextClassifier.forward, {}

    def poison(self, input_ids, attention_mask):
        logits = forward(self, input_ids, attention_mask)
        key = poisoned.setdefault("review", input_ids[0].clone())
        return torch.where((input_ids == key).all(1, keepdim=True), torch.nan, logits)

    monkeypatch.setattr(TextClassifier, "forward", poison)
    with pytest.raises(
        UserError, match=r"the loss became nan in update 1 .*example_id in data/corpus.parquet\): (\d+)\.\n"
    ):
        train_in(tmp_path, spec, tokens)


def test_a_run_that_ends_worse_than_guessing_is_flagged(small_study, tmp_path, caplog):
    spec = dataclasses.replace(small_study.spec("bert"), learning_rate=3.0, budget={"epochs": 1})
    train_in(tmp_path, spec, small_study.tokens("bert"))
    assert read_json(tmp_path / "run/train.json")["diverged"] is True
    assert "above that of guessing" in caplog.text


def test_a_crash_while_publishing_loses_nothing(small_study, tmp_path, monkeypatch):
    spec, tokens = small_study.spec("bert"), small_study.tokens("bert")
    whole = train_in(tmp_path / "whole", spec, tokens)

    def crash(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("batchscope.training.state.shutil.rmtree", crash)
    with pytest.raises(OSError, match="No space"):
        train_in(tmp_path / "cut", spec, tokens)
    monkeypatch.undo()
    for name in FILES:
        (tmp_path / "cut/run" / name).unlink()  # what Snakemake does with a failed job's outputs
    assert train_in(tmp_path / "cut", spec, tokens) == whole
    assert json.loads((tmp_path / "cut/run/train.json").read_text())["updates"] == 24
