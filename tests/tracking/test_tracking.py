"""Weights & Biases gets every record exactly once, and none of its failures reaches the training."""

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest
from processes import wait_for_the_end
from wandb_folders import rows, stored, summary
from wandb_server import wandb_server

from batchscope.tracking import Tracker, TrackingSpec, shortened

SPEC = {"model": {"architecture": "bert", "config": {}}, "seed": 7, "learning_rate": 5e-5, "target_batch_size": 64}
FINGERPRINT = "0123456789abcdef"
MEASURED = {"correct": 30, "examples": 64, "accuracy": 30 / 64, "loss": 0.7}
UPDATES = 40


def settings(mode: str) -> TrackingSpec:
    """As ``Study.tracking_spec`` makes them."""
    return TrackingSpec(mode=mode, project="batchscope", study="demo", model="bert", batch=64, policy="sqrt", seed=7)


def history() -> Iterator[dict[str, Any]]:
    """Two epochs of ``history.jsonl``."""
    for update in range(1, UPDATES + 1):
        position = {"update": update, "epoch": 1 + (update > UPDATES // 2), "samples": 64 * update}
        yield {"kind": "update", **position, **MEASURED, "lr": 1e-3 / update, "grad_norm": 1.5}
        if update % (UPDATES // 2) == 0:
            yield {"kind": "epoch", **position, "train": MEASURED, "validation": MEASURED | {"accuracy": update / 100}}


def service_of(tracker: Tracker) -> psutil.Process:
    """wandb's service process, once it is up. wandb also starts processes that end at once."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        for child in psutil.Process(tracker._process.pid).children(recursive=True) if tracker._process else []:
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name().startswith("wandb-core"):
                    return child
        time.sleep(0.1)
    pytest.fail("wandb started no service within 60 s")


# --------------------------------------------------------------------------------------------------------- works


def test_an_offline_run_holds_every_record_exactly_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Tracker(settings("offline"), SPEC, FINGERPRINT, tmp_path / "wandb") as tracker:
        for record in history():
            tracker.log(record)
        tracker.finish({"test_accuracy": 0.9})
    assert not caplog.records
    records = stored(tmp_path / "wandb")

    found = rows(records)
    updates = [row for row in found if "train/loss" in row]
    assert [row["update"] for row in updates] == list(range(1, UPDATES + 1))
    assert [row["samples"] for row in updates] == [64 * update for update in range(1, UPDATES + 1)]
    assert [row["train/lr"] for row in updates] == [1e-3 / update for update in range(1, UPDATES + 1)]
    assert [(row["update"], row["validation/accuracy"]) for row in found if "validation/loss" in row] == [
        (UPDATES // 2, UPDATES / 200),
        (UPDATES, UPDATES / 100),
    ]
    assert len(found) == UPDATES + 2

    run = next(record.run for record in records if record.WhichOneof("record_type") == "run")
    assert (run.display_name, run.run_group) == ("bert/bs64/sqrt/seed7", "demo/bert")
    assert sorted(run.tags) == ["batch=64", "policy=sqrt"]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert SPEC.items() <= config.items()
    metrics = {record.metric.glob_name or record.metric.name: record.metric for record in records if record.metric.name}
    assert {"update", "samples", "validation/accuracy"} <= metrics.keys()
    assert next(record for record in records if record.WhichOneof("record_type") == "exit").exit.exit_code == 0


HOSTILE = ["<script>alert(1)</script>", "\x1b[31mred", "$\\frac{1}{0}$", "\u202eevil\u200b", "../../etc/passwd", "-rf"]
HOSTILE += ["$(touch RUN); `touch RUN`", "{{7*7}}", "a\nb", "é😀", "x" * 5000, "a\0b", "_wandb", "key.with/parts"]


def test_hostile_texts_and_long_names_are_stored_as_text(tmp_path: Path) -> None:
    """Texts reach a spec as the path and the settings of a checkpoint, and a summary as the names of classes."""
    long = {"study": "s" * 100, "model": "m" * 100, "policy": "p" * 100, "budget": "b" * 100, "project": "q" * 100}
    named = TrackingSpec(mode="offline", batch=64, seed=2**32 - 1, **long)
    spec = {"model": {"checkpoint": HOSTILE[4], "config": {text: text for text in HOSTILE}}, "texts": HOSTILE}
    with Tracker(named, spec, FINGERPRINT, tmp_path / "wandb") as tracker:
        tracker.log(next(history()))
        tracker.finish({f"class/{text}": text for text in HOSTILE})
    assert tracker.failure is None
    records = stored(tmp_path)
    run = next(record.run for record in records if record.WhichOneof("record_type") == "run")
    assert [json.loads(item.value_json) for item in run.config.update if item.key in spec] == list(spec.values())
    assert {f"class/{text}": text for text in HOSTILE}.items() <= summary(records).items()
    assert [len(tag) for tag in sorted(run.tags)] == [8, 64, 64]
    assert len(run.display_name) == len(run.run_group) == 128
    files = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")]
    assert all(re.fullmatch(r"[\w./-]+", name) for name in files) and len(files) < 20, files


def test_names_that_are_cut_stay_apart() -> None:
    assert shortened("a" * 64, 64) == "a" * 64
    cut = {shortened("a" * 65 + end, 64) for end in "xyz"}
    assert len(cut) == 3 and {len(name) for name in cut} == {64}


def test_nothing_of_the_machine_is_recorded(tmp_path: Path) -> None:
    with Tracker(settings("offline"), SPEC, FINGERPRINT, tmp_path / "wandb") as tracker:
        tracker.log(next(history()))
    assert not [path.name for path in tmp_path.rglob("files/*")]
    assert not [record for record in stored(tmp_path) if record.run.git.remote_url or record.run.host]


def test_disabled_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    with Tracker(settings("disabled"), SPEC, FINGERPRINT, tmp_path / "wandb") as tracker:
        for record in history():
            tracker.log(record)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_training_keeps_its_error_and_is_marked(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        Tracker(settings("offline"), SPEC, FINGERPRINT, tmp_path / "wandb") as tracker,
    ):
        tracker.log(next(history()))
        _ = 1 / 0
    records = stored(tmp_path)
    assert next(record for record in records if record.WhichOneof("record_type") == "exit").exit.exit_code == 1


def test_a_killed_training_leaves_its_records(tmp_path: Path) -> None:
    program = f"""
import os, signal, sys
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1] / "support")!r}]
from pathlib import Path
from test_tracking import FINGERPRINT, SPEC, Tracker, history, service_of, settings
with Tracker(settings("offline"), SPEC, FINGERPRINT, Path({str(tmp_path / "wandb")!r})) as tracker:
    for record in history():
        tracker.log(record)
    service_of(tracker)
    while not tracker._queue.empty():
        pass
    print(tracker._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    wait_for_the_end(int(killed.stdout))
    assert len(rows(stored(tmp_path))) >= UPDATES + 1  # the last message may have been on its way


# --------------------------------------------------------------------------------------------------------- fails


def run_to_the_end(tracker: Tracker) -> list[float]:
    """A training that logs its whole history; returns the seconds that it spent in each call of ``log``."""
    spent = []
    with tracker:
        for record in history():
            start = time.perf_counter()
            tracker.log(record)
            spent.append(time.perf_counter() - start)
    return spent


def the_only_warning(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    return record.getMessage()


def test_a_file_in_place_of_the_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "wandb").write_text("in the way")
    run_to_the_end(Tracker(settings("offline"), SPEC, FINGERPRINT, tmp_path / "wandb"))
    assert "FileExistsError" in the_only_warning(caplog)


def test_a_folder_that_cannot_be_made(caplog: pytest.LogCaptureFixture) -> None:
    """Below /proc not even root can write."""
    run_to_the_end(Tracker(settings("offline"), SPEC, FINGERPRINT, Path("/proc/batchscope/wandb")))
    assert "/proc/batchscope" in the_only_warning(caplog)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where it is not allowed to")
def test_a_read_only_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o500)
    run_to_the_end(Tracker(settings("offline"), SPEC, FINGERPRINT, tmp_path / "wandb"))
    assert "PermissionError" in the_only_warning(caplog)


def test_no_wandb(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb.py").write_text("raise ImportError('no wandb here')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    run_to_the_end(Tracker(settings("offline"), SPEC, FINGERPRINT, tmp_path / "files"))
    assert "no wandb here" in the_only_warning(caplog)


def test_no_key(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    run_to_the_end(Tracker(settings("online"), SPEC, FINGERPRINT, tmp_path / "wandb"))
    assert "API key" in the_only_warning(caplog)


def test_a_closed_port(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without a network: wandb tries for half a minute, beside the training and at most so long after it."""
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    run_to_the_end(Tracker(settings("online"), SPEC, FINGERPRINT, tmp_path / "wandb"))
    assert "connection refused" in the_only_warning(caplog)


def test_the_network_goes_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with contextlib.ExitStack() as network:
        server = network.enter_context(wandb_server())
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        with Tracker(settings("online"), SPEC, FINGERPRINT, tmp_path / "wandb", finish_seconds=3) as tracker:
            for number, record in enumerate(history()):
                tracker.log(record)
                while number == 0 and not server.runs:
                    time.sleep(0.05)
                if number == UPDATES // 2:
                    network.close()
    assert tracker.failure == the_only_warning(caplog).partition("The reason: ")[2]
    assert len(next(iter(server.runs.values())).lines) <= UPDATES


def test_a_record_that_cannot_be_sent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Tracker(settings("offline"), SPEC, FINGERPRINT, tmp_path / "wandb") as tracker:
        tracker.log({"kind": object()})
        tracker.log({"kind": "update"})
    assert "JSON" in the_only_warning(caplog)


def test_the_service_killed_in_mid_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Tracker(settings("offline"), SPEC, FINGERPRINT, tmp_path / "wandb")
    with tracker:
        for record in history():
            tracker.log(record)
            if record["kind"] == "update" and record["update"] == UPDATES // 2:
                service_of(tracker).kill()
            time.sleep(0.02)
    assert "tracking stopped" in the_only_warning(caplog)


def test_the_service_hangs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Tracker(settings("offline"), SPEC, FINGERPRINT, tmp_path / "wandb") as tracker:
        tracker._patience = 2.0
        service = service_of(tracker)
        service.suspend()
        started = time.perf_counter()
        for record in history():
            tracker.log(record)
    assert time.perf_counter() - started < 30, "it waited as long as for a service that answers"
    assert "does not answer" in the_only_warning(caplog)
    with contextlib.suppress(psutil.NoSuchProcess):
        service.kill()


def test_logging_costs_the_training_nothing(tmp_path: Path) -> None:
    """Microseconds each, also while wandb starts: the median, because a busy machine stops any process for a while."""
    spent = run_to_the_end(Tracker(settings("offline"), SPEC, FINGERPRINT, tmp_path / "wandb"))
    assert median(spent) < 1e-3
