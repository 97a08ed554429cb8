"""Whatever ended a training, its Weights & Biases run has every update exactly once, live or replayed."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from forked import Forked
from jobs import RUN, Jobs, jobs_of
from small import tiny_config
from wandb_folders import rows, stored, summary
from wandb_server import Server, wandb_server

from batchscope.files import read_json
from batchscope.tracking import TrackingSpec, lines_before, run_id, unsent

EPOCHS, UPDATES_PER_EPOCH = 40, 12


@dataclass
class Training:
    """A training of 480 updates, as the rules start it. It saves a state at the end of each epoch."""

    jobs: Jobs

    @property
    def run(self) -> Path:
        return self.jobs.layout.run(RUN)

    @property
    def wandb(self) -> Path:
        return self.jobs.layout.tracking

    @property
    def tracking_spec(self) -> TrackingSpec:
        return self.jobs.read().spec(f"track/{RUN}", TrackingSpec)

    def start(self) -> Forked:
        """Start or go on with the training."""
        return self.jobs.fork(f"train/{RUN}", "--threads", 1)

    def evaluate(self) -> None:
        finish(self.jobs.fork(f"evaluate/{RUN}"))

    def track(self, **environment: str) -> subprocess.Popen[str]:
        """Replay it."""
        return self.jobs.start(f"track/{RUN}", **environment)

    def wait_for_epoch(self, epoch: int) -> None:
        """Until the state of this epoch is saved."""
        give_up = time.monotonic() + 120
        while self.saved_update() < epoch * UPDATES_PER_EPOCH and time.monotonic() < give_up:
            time.sleep(0.005)
        assert self.saved_update() < (EPOCHS - 10) * UPDATES_PER_EPOCH, "the training is too short for its kills"

    def saved_update(self) -> int:
        return max((int(path.stem.split("-")[1]) for path in self.jobs.layout.state.glob("*/state-*.pt")), default=0)

    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run / "history.jsonl").read_text().splitlines()]


def finish(process: subprocess.Popen[str] | Forked) -> str:
    """The output of a verb that succeeds."""
    if isinstance(process, Forked):
        done = process.complete(timeout=300)
        out, err, status = done.stdout, done.stderr, done.returncode
    else:
        (out, err), status = process.communicate(timeout=300), process.returncode
    assert status == 0, out + err
    return out + err


def training(small_study: Any, folder: Path, mode: str) -> Training:
    """A training in a folder of its own; without a small study in the folder of an earlier one."""
    config = tiny_config(tracking={"mode": mode}, budget={"epochs": EPOCHS}, physical_batch_size=16)
    return Training(jobs_of(folder, config, small_study))


@pytest.fixture(scope="module")
def finished(small_study: Any, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Killed in its fourth epoch or later, resumed, finished and evaluated."""
    run = training(small_study, tmp_path_factory.mktemp("offline"), "offline")
    killed = run.start()
    run.wait_for_epoch(3)
    killed.process.kill()
    killed.complete()
    assert "resuming after update" in finish(run.start())
    run.evaluate()
    return run


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that the verbs take for Weights & Biases."""
    with wandb_server() as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        yield running


def assert_every_line_once(found: list[dict[str, Any]], history: list[dict[str, Any]]) -> None:
    """The rows are those of the history, in its order, one step per line."""
    assert len(history) == EPOCHS * (UPDATES_PER_EPOCH + 1)
    assert [row["_step"] for row in found] == list(range(len(history)))
    for row, record in zip(found, history, strict=True):
        assert [row[axis] for axis in ("update", "samples", "epoch")] == [
            record[axis] for axis in ("update", "samples", "epoch")
        ]
        assert row["train/loss" if record["kind"] == "update" else "train/epoch_loss"] == (
            record["loss"] if record["kind"] == "update" else record["train"]["loss"]
        )


# ------------------------------------------------------------------------------------------------------- offline


def test_offline_nothing_is_logged_while_it_trains(finished: Training) -> None:
    """The nodes need no wandb; the run folder is made afterwards."""
    if not (finished.run / "tracking.json").exists():
        assert not finished.wandb.exists()


def test_a_killed_and_resumed_training_is_replayed_exactly_once(finished: Training) -> None:
    finish(finished.track())
    record = read_json(finished.run / "tracking.json")
    (folder,) = finished.wandb.glob("offline-run-*")
    assert finished.jobs.folder / record["folder"] == folder and folder.name.endswith(record["id"])
    records = stored(folder)
    assert_every_line_once(rows(records), finished.history())
    assert record["rows"] == len(finished.history()) and record["mode"] == "offline"

    manifest = read_json(finished.run / "manifest.json")
    run = next(record.run for record in records if record.WhichOneof("record_type") == "run")
    assert (run.run_id, run.display_name) == (
        run_id(finished.tracking_spec, manifest["fingerprint"]),
        "bert/bs16/constant/seed1",
    )
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert manifest["spec"].items() <= config.items()
    values = summary(records)
    assert values["test/best/accuracy"] == read_json(finished.run / "metrics.json")["test"]["best"]["accuracy"]
    assert values["best_epoch"] == read_json(finished.run / "train.json")["best_epoch"]


def test_a_second_replay_takes_the_place_of_the_first(finished: Training) -> None:
    for _ in range(2):
        finish(finished.track())
    (folder,) = finished.wandb.glob("offline-run-*")
    assert_every_line_once(rows(stored(folder)), finished.history())


def test_wandb_sync_takes_the_folder(finished: Training, server: Server) -> None:
    """wandb's own command, on the folder that is named in the record, with an address and a key."""
    finish(finished.track())
    record = read_json(finished.run / "tracking.json")
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
    command = [sys.executable, "-m", "wandb", "sync", record["folder"]]
    subprocess.run(command, cwd=finished.jobs.folder, env=environment, check=True, timeout=120)
    assert_every_line_once(server.runs[record["id"]].history, finished.history())
    assert "test/best/accuracy" in server.runs[record["id"]].summary


def test_a_failure_is_one_message_and_no_record(finished: Training) -> None:
    broken = training(None, finished.jobs.folder, "online")
    (broken.run / "tracking.json").unlink(missing_ok=True)
    process = broken.track(HOME=str(finished.jobs.folder), WANDB_BASE_URL="http://127.0.0.1:9", WANDB_API_KEY="")
    _, output = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Weights & Biases did not take bert/bs16/constant/seed1" in output and "Traceback" not in output
    assert not (broken.run / "tracking.json").exists()


# -------------------------------------------------------------------------------------------------------- online


def test_online_a_retry_leaves_neither_gap_nor_repeat(small_study: Any, tmp_path: Path, server: Server) -> None:
    """First the node dies, with rows that never left it; then the training alone, with rows that its state has not."""
    run = training(small_study, tmp_path, "online")
    node = run.start()
    run.wait_for_epoch(2)
    training_of_node = psutil.Process(node.process.pid)
    for process in [training_of_node, *training_of_node.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended when the one before it did
            process.kill()
    node.complete()

    killed = run.start()
    run.wait_for_epoch(12)
    trackers = psutil.Process(killed.process.pid).children(recursive=True)
    killed.process.kill()
    killed.complete()
    psutil.wait_procs(trackers, timeout=60)
    (stored_run,) = server.runs.values()
    present = len(stored_run.lines)
    assert stored_run.exit_codes[-1] == 1, "the tracker says that the training was cut off"
    assert present > 0

    assert "resuming after update" in finish(run.start())
    assert_every_line_once(stored_run.history, run.history())
    assert sorted(stored_run.written) == list(range(len(run.history()))), "no line was sent twice"
    assert stored_run.exit_codes[-1] == 0

    run.evaluate()
    finish(run.track())
    (stored_run,) = server.runs.values()
    assert_every_line_once(stored_run.history, run.history())
    assert len(stored_run.written) == len(run.history())
    metrics = read_json(run.run / "metrics.json")
    assert stored_run.summary["test/best/accuracy"] == metrics["test"]["best"]["accuracy"]
    assert read_json(run.run / "tracking.json")["rows"] == len(run.history())


def test_online_a_replay_brings_what_the_nodes_could_not_send(finished: Training, server: Server) -> None:
    online = training(None, finished.jobs.folder, "online")
    for _ in range(2):
        finish(online.track())
        (stored_run,) = server.runs.values()
        assert_every_line_once(stored_run.history, online.history())
        assert len(stored_run.written) == len(online.history())
    assert "test/best/accuracy" in stored_run.summary


# ---------------------------------------------------------------------------------------------------------- parts

LINES = [{"kind": "update", "update": 1}, {"kind": "update", "update": 2}, {"kind": "epoch", "update": 2}]


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("cut", [0, 5])
def test_the_lines_before_a_record_are_those_of_earlier_starts(tmp_path: Path, first: int, cut: int) -> None:
    """However far the file has been written by then."""
    record = {"kind": "update", "update": 3}
    whole = "".join(json.dumps(line) + "\n" for line in [*LINES, record])
    sought = [*LINES, record][first]
    written = whole if cut == 0 else "".join(whole.splitlines(keepends=True)[:first]) + whole[:cut]
    (tmp_path / "history.jsonl").write_text(written)
    assert list(lines_before(tmp_path / "history.jsonl", sought)) == LINES[:first]


@pytest.mark.parametrize("present", range(5))
def test_what_is_there_is_not_sent(present: int) -> None:
    assert list(unsent(iter(LINES), present)) == LINES[present:]


def test_a_run_is_told_from_every_other() -> None:
    spec = TrackingSpec(mode="offline", project="p", study="s", model="bert", batch=16, policy="constant", seed=1)
    changes = [{}, {"study": "other"}, {"model": "b"}, {"batch": 32}, {"policy": "sqrt"}, {"seed": 2}]
    names = {run_id(spec.model_copy(update=change), fingerprint) for change in changes for fingerprint in ("a", "b")}
    assert len(names) == 2 * len(changes)
    assert run_id(spec, "a") == run_id(spec.model_copy(update={"mode": "online"}), "a")
