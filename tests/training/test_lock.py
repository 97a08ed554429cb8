"""One process trains a run; another that wants the same run waits for it and takes its files."""

import os
import signal
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from jobs import RUN, jobs_of
from lock_holder import hold
from small import tiny_config

from batchscope import locks
from batchscope.files import read_json
from batchscope.locks import take, waiting_lock
from batchscope.provenance.fingerprint import file_hash
from batchscope.tracking import Tracker

FILES = ("history.jsonl", "checkpoints/best.safetensors", "checkpoints/last.safetensors")


def test_a_lock_is_waited_for_and_free_when_its_holder_is_killed(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    process, naps = hold(tmp_path / "one.lock"), []

    def kill_at_the_second_nap(seconds):
        naps.append(seconds)
        with ExitStack() as stack:
            assert not take(tmp_path / "one.lock", stack)
        if len(naps) == 2:
            process.send_signal(signal.SIGKILL)
            process.wait()

    monkeypatch.setattr(locks.time, "sleep", kill_at_the_second_nap)
    with waiting_lock(tmp_path / "one.lock", "the training of bert"):
        assert len(naps) == 2
    assert caplog.messages == [
        f"process {process.pid} on {os.uname().nodename} is at work on the training of bert: waiting until it ends"
    ]
    assert not (tmp_path / "one.lock").exists()


def test_a_lock_file_that_was_deleted_in_between_locks_nothing(tmp_path):
    path = tmp_path / "one.lock"
    with ExitStack() as first, ExitStack() as second:
        assert take(path, first)
        path.unlink()
        assert take(path, second), "a new file"
        assert not take(path, first)


def test_a_file_system_without_locks_is_told_and_not_fatal(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(locks.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with waiting_lock(tmp_path / "one.lock", "the training of bert"):
        pass
    assert "without locks" in caplog.text


def meet(waits: Path) -> None:
    """In each of two processes: the one that waits for the lock says so, and the one that trains waits for that."""
    log, give_up = Tracker.log, time.monotonic() + 60

    def nap(seconds: float) -> None:
        waits.touch()
        time.sleep(seconds)

    def log_when_the_other_waits(self: Tracker, record: dict[str, object]) -> None:
        while not waits.exists() and time.monotonic() < give_up:
            time.sleep(0.01)
        log(self, record)

    locks.time = SimpleNamespace(sleep=nap)
    Tracker.log = log_when_the_other_waits


def test_two_studies_that_want_one_run_train_it_once(small_study, tmp_path):
    """Both are started at once, in one results folder; the second finds the files of the first."""
    config = tiny_config(budget={"epochs": 1}, target_batch_sizes=[16])
    alone = jobs_of(tmp_path / "alone", config, small_study)
    assert alone.fork(f"train/{RUN}", "--threads", 1).complete(timeout=300).returncode == 0
    studies = [jobs_of(tmp_path / "both", config | {"study": name}, small_study) for name in ("one", "two")]
    meeting = partial(meet, tmp_path / "waits")
    processes = [jobs.fork(f"train/{RUN}", "--threads", 1, before=meeting) for jobs in studies]
    ended = [process.complete(timeout=300) for process in processes]
    said = [process.stderr for process in ended]
    assert [process.returncode for process in ended] == [0, 0], said
    assert sum("is at work on the training of" in log for log in said) == 1, said
    runs = [jobs.layout.run(RUN) for jobs in studies]
    assert sum(read_json(run / "manifest.json")["reused_from"] is not None for run in runs) == 1
    for run in runs:
        assert [file_hash(run / name) for name in FILES] == [file_hash(alone.layout.run(RUN) / name) for name in FILES]
    assert not list(studies[0].layout.locks.iterdir())
