"""The sign of life that the process of a job gives."""

import os
import time
from pathlib import Path

import pytest

from batchscope.errors import UserError
from batchscope.files import read_json
from batchscope.training.stop import EXIT_STATUS, Stopped
from batchscope.watch import pulse as pulses
from batchscope.watch.pulse import Pulse, started_ticks


def update(number: int) -> dict:
    scores = {"correct": 8, "examples": 16, "accuracy": 0.5, "loss": 0.7}
    return {
        "kind": "update",
        "update": number,
        "epoch": 1,
        "samples": 16 * number,
        "lr": 1.0,
        "grad_norm": 1.0,
    } | scores


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "running/train/bert/seed1.json"


def pulse(path: Path) -> Pulse:
    return Pulse(path, Path("results/a/jobs/1.json"), time.time())


def test_it_beats_while_the_job_runs_and_is_gone_afterwards(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulses, "FIRST_MINUTE_SECONDS", 0.01)
    with pulse(path) as beating:
        first = read_json(path)
        assert (first["phase"], first["pid"]) == ("waiting", os.getpid()) and "progress" not in first
        assert first["started_ticks"] == started_ticks(os.getpid())
        beating.phase("working")
        beating.observe(update(1))
        time.sleep(0.05)
        beating.observe(update(2))
        beating.observe({"kind": "validation", "validation": {"loss": 0.1}})
        give_up = time.monotonic() + 30
        while "validation" not in (now := read_json(path)).get("progress", {}) and time.monotonic() < give_up:
            time.sleep(0.01)
        assert now["beat"] > first["beat"] + 1 and now["phase"] == "working"
        assert now["progress"]["samples"] == 32
        assert 0 < now["progress"]["samples_per_second"] <= 16 / 0.05
    assert not path.exists()
    time.sleep(0.05)
    assert not list(path.parent.iterdir()), "no late beat"


@pytest.mark.parametrize(
    ("error", "phase", "message"),
    [
        (UserError("data.source: no such file"), "failed", "data.source: no such file"),
        (RuntimeError("boom"), "failed", "RuntimeError: boom"),
        (Stopped("received SIGTERM"), "stopped", "received SIGTERM"),
        (SystemExit(EXIT_STATUS), "stopped", f"SystemExit: {EXIT_STATUS}"),
        (SystemExit(1), "failed", "SystemExit: 1"),
    ],
)
def test_it_says_how_the_job_ended(path: Path, error: BaseException, phase: str, message: str) -> None:
    with pytest.raises(type(error)), pulse(path):
        raise error
    assert (read_json(path)["phase"], read_json(path)["message"]) == (phase, message)


def test_a_file_that_cannot_be_written_is_one_warning(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.parent.mkdir(parents=True)
    path.parent.write_text("a file where a folder should be")
    with pulse(path) as beating:
        beating.phase("starting")
        beating.phase("working")
    assert len(caplog.messages) == 1 and "will not see how this job goes on" in caplog.text


def test_outside_of_its_context_it_writes_nothing(path: Path) -> None:
    pulse(path).phase("working")
    assert not path.exists()
