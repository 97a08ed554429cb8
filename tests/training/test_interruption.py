"""Whatever ends a training, the next start ends with the bytes of an undisturbed one."""

import json
import math
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from disks import small_disk_at
from forked import CONTEXT
from safetensors.torch import save_file
from small import train_settings

from batchscope.errors import UserError
from batchscope.files import atomic, read_json
from batchscope.hardware import device
from batchscope.provenance.fingerprint import file_hash
from batchscope.training import loop, run
from batchscope.training.accumulate import ManualEngine
from batchscope.training.loop import train
from batchscope.training.state import Workspace
from batchscope.training.stop import Stopped, StopRequest, deadline

FILES = ("history.jsonl", "checkpoints/best.safetensors", "checkpoints/last.safetensors")
SETTINGS = train_settings(save_every=0)  # a state after every update
KILLS = 4
KILLED = [(architecture, engine) for architecture in ("bert", "modernbert") for engine in ("manual", "accelerate")]
ROUNDS = max(1, int(63 * float(os.environ.get("BATCHSCOPE_SOAK", "0"))))
"""`make soak` kills a thousand times; with `BATCHSCOPE_SOAK=0.1` a tenth of that."""


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


@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize(("architecture", "engine"), KILLED)
def test_killed_at_random_moments_it_ends_with_the_same_bytes(small_study, tmp_path, architecture, engine, number):
    spec = small_study.spec(architecture, engine=engine, budget={"epochs": 3})
    tokens = small_study.tokens(architecture)
    whole = train_in(tmp_path / "whole", spec, tokens)
    dice, gate = random.Random(f"{architecture} {engine} {number}"), tmp_path / "saving"
    killed = during_a_save = 0
    while killed < KILLS:
        process = CONTEXT.Process(target=train_in_process, args=(tmp_path / "cut", spec, tokens, gate))
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
    try:
        return max((path.name for path in states.glob("*/state-*.pt")), default="")
    except FileNotFoundError:  # a folder went while it was listed
        return ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_within_a_micro_batch_and_the_next_start_goes_on(small_study, tmp_path, monkeypatch, number):
    spec, tokens = small_study.spec("bert"), small_study.tokens("bert")
    whole = train_in(tmp_path / "whole", spec, tokens, train_settings(save_every=1e9))
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
        train_in(tmp_path / "cut", spec, tokens, train_settings(save_every=1e9))
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
    halved = train_in(tmp_path / "halved", spec, tokens, train_settings(physical_batch_size=16, save_every=0))
    monkeypatch.undo()
    assert read_json(tmp_path / "halved/run/manifest.json")["physical_batch_size"] == 4
    assert halved == train_in(tmp_path / "small", spec, tokens, train_settings(physical_batch_size=4, save_every=0))


def test_one_review_that_does_not_fit_is_an_error_of_the_user(small_study, tmp_path, monkeypatch):
    def never(self, batches, autocast):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ManualEngine, "accumulate", never)
    with pytest.raises(UserError, match="micro-batch of one review"):
        train_in(tmp_path, small_study.spec("bert"), small_study.tokens("bert"))


def test_auto_is_recorded_and_kept_over_a_restart(small_study, tmp_path):
    spec, tokens = small_study.spec("bert"), small_study.tokens("bert")
    settings = train_settings(physical_batch_size="auto", save_every=0)

    def cut(record):
        if record["update"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path / "cut", spec, tokens, settings, observe=cut)
    train_in(tmp_path / "cut", spec, tokens, train_settings(physical_batch_size=3, save_every=0))
    size = read_json(tmp_path / "cut/run/manifest.json")["physical_batch_size"]
    assert size in (8, 16), "the one that was found, not the one asked for after the restart"
    whole = train_in(tmp_path / "whole", spec, tokens, train_settings(physical_batch_size=size, save_every=0))
    assert whole == {name: file_hash(tmp_path / "cut/run" / name) for name in FILES}


def test_the_reviews_with_a_loss_that_is_not_finite_are_named(small_study, tmp_path, monkeypatch):
    spec, tokens = small_study.spec("bert"), small_study.tokens("bert")
    from batchscope.model.classifier import TextClassifier

    forward, poisoned = TextClassifier.forward, {}

    def poison(self, input_ids, attention_mask):
        logits = forward(self, input_ids, attention_mask)
        key = poisoned.setdefault("review", input_ids[0].clone())
        return torch.where((input_ids == key).all(1, keepdim=True), torch.nan, logits)

    monkeypatch.setattr(run, "check_model", lambda *_: None)  # it would meet the poisoned review first
    monkeypatch.setattr(TextClassifier, "forward", poison)
    with pytest.raises(
        UserError, match=r"the loss became nan in update 1 .*example_id in data/corpus.parquet\): (\d+)\.\n"
    ):
        train_in(tmp_path, spec, tokens)


def test_a_run_that_ends_worse_than_guessing_is_flagged(small_study, tmp_path, caplog):
    spec = small_study.spec("bert", lr_policies={"constant": {"base_lr": 3.0}}, budget={"epochs": 1})
    train_in(tmp_path, spec, small_study.tokens("bert"))
    assert read_json(tmp_path / "run/train.json")["diverged"] is True
    assert "above that of guessing" in caplog.text


def test_a_crash_while_publishing_loses_nothing(small_study, tmp_path, monkeypatch):
    spec, tokens = small_study.spec("bert"), small_study.tokens("bert")
    whole = train_in(tmp_path / "whole", spec, tokens)

    rmtree = shutil.rmtree

    def crash(path, *arguments, **options):
        if (Path(path) / "history.jsonl").exists():  # the workspace, not a temporary folder
            raise OSError(28, "No space left on device")
        rmtree(path, *arguments, **options)

    monkeypatch.setattr("batchscope.training.state.shutil.rmtree", crash)
    with pytest.raises(OSError, match="No space"):
        train_in(tmp_path / "cut", spec, tokens)
    monkeypatch.undo()
    for name in FILES:
        (tmp_path / "cut/run" / name).unlink()  # what Snakemake does with a failed job's outputs
    assert train_in(tmp_path / "cut", spec, tokens) == whole
    assert json.loads((tmp_path / "cut/run/train.json").read_text())["updates"] == 24


def test_a_state_of_another_precision_is_named_kept_and_not_resumed(small_study, tmp_path, monkeypatch, caplog):
    """A machine with fast bfloat16 begins the run, one without takes it on: under one spec, in different arithmetic."""
    spec, tokens = small_study.spec("bert", precision="auto", budget={"updates": 12}), small_study.tokens("bert")

    def on(precision):
        monkeypatch.setattr(device, "resolve_precision", lambda wanted, place: precision)

    def cut(record):
        if record["update"] == 5:
            raise KeyboardInterrupt

    on(torch.float32)
    alone = train_in(tmp_path / "alone", spec, tokens)
    on(torch.bfloat16)
    with pytest.raises(KeyboardInterrupt):
        train_in(tmp_path / "both", spec, tokens, observe=cut)
    (begun,) = (tmp_path / "both/state").iterdir()
    on(torch.float32)
    seen = []

    def look(record):
        seen.append((record["update"], begun.exists()))

    assert train_in(tmp_path / "both", spec, tokens, observe=look) == alone
    assert seen[0] == (1, True) and seen[-1][1], "the other state is there until the run is finished"
    assert f"in bfloat16 on cpu is in {begun}" in caplog.text and "float32 on cpu, so it starts anew" in caplog.text
    assert not list((tmp_path / "both/state").iterdir())
    for name in ("train.json", "manifest.json"):
        recorded = read_json(tmp_path / "both/run" / name)
        assert (recorded["precision"], recorded["device_type"]) == ("float32", "cpu")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of eight MiB."""
    with small_disk_at(tmp_path / "disk", "8m") as disk:
        yield disk


def test_a_full_disk_is_named_and_the_run_resumes_when_there_is_space(small_study, tmp_path, small_disk):
    spec, tokens = small_study.spec("bert"), small_study.tokens("bert")
    whole = train_in(tmp_path / "whole", spec, tokens)
    seen, ballast = [], small_disk / "ballast"

    def fill(record):
        seen.append(record["update"])
        if record["update"] == 5:
            free = shutil.disk_usage(small_disk).free
            ballast.write_bytes(b"0" * (free - 20_000))

    with pytest.raises(UserError, match=rf"the disk {small_disk} is full .*state.* could not be written") as refused:
        train_in(small_disk, spec, tokens, observe=fill)
    assert "\n" not in str(refused.value)
    ballast.unlink()
    assert train_in(small_disk, spec, tokens, observe=lambda record: seen.append(record["update"])) == whole
    assert seen[5] == 5, "it resumes after update 4"


@pytest.mark.parametrize("library", ["torch", "safetensors", "shutil"])
def test_whatever_a_library_says_of_a_full_disk_it_is_named(tmp_path, small_disk, library):
    (tmp_path / "large").write_bytes(b"0" * 2**24)
    write = {
        "torch": lambda path: Workspace(path.parent).save({"update": 1}, {"weights": torch.zeros(2**22)}, {}),
        "safetensors": lambda path: save_file({"weights": torch.zeros(2**22)}, path),
        "shutil": lambda path: shutil.copyfile(tmp_path / "large", path),
    }[library]
    with pytest.raises(UserError, match=f"the disk {small_disk} is full"), atomic(small_disk / "file") as temporary:
        write(temporary)
    assert not list(small_disk.glob("*file*")) and not list(small_disk.glob("*state*"))


def test_strict_refuses_what_depends_on_time_or_memory(small_study, tmp_path, monkeypatch):
    spec = small_study.spec("bert").model_copy(update={"determinism": "strict"})
    with pytest.raises(UserError, match="physical_batch_size"):
        train_in(tmp_path, spec, small_study.tokens("bert"), train_settings(physical_batch_size="auto"))

    def never(self, batches, autocast):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ManualEngine, "accumulate", never)
    monkeypatch.setattr(loop, "compute_deterministically", lambda: None)  # it would hold for the tests after this one
    prepared = []
    monkeypatch.setattr(ManualEngine, "prepare", lambda self, batch, autocast, kind: prepared.append(kind) or {})
    with pytest.raises(UserError, match="lower `physical_batch_size`"):
        train_in(tmp_path, spec, small_study.tokens("bert"))
    assert prepared == ["eager"], "nothing was timed"
