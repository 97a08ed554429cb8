"""Weights & Biases through the workflow: a run folder per training, whatever happened to it; nothing trained for it."""

import json
import os
import signal
import subprocess
import time

import pytest
from small_workflow import Workflow
from wandb_folders import rows, stored

from batchscope.files import read_json

RUN = "results/small/runs/bert/bs16/constant/seed1"
TRACKING = {"tracking": {"mode": "offline"}}
ONE_RUN = {
    "target_batch_sizes": [16],
    "lr_policies": {"constant": {"base_lr": 1e-3}},
    "budget": {"epochs": 8},
    "save_every": 0.001,
}


@pytest.fixture(scope="module")
def tracked(root, tmp_path_factory):
    """One training, killed with its workflow in mid-run, finished by the next start, evaluated and replayed."""
    workflow = Workflow(root, tmp_path_factory.mktemp("tracked"))
    workflow.write_config(**ONE_RUN, **TRACKING)
    process = subprocess.Popen(
        workflow.command("--", f"{RUN}/tracking.json"),
        env=workflow.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    states = workflow.folder / "results/small/state"
    give_up = time.monotonic() + 300
    while not list(states.glob("*/state-*.pt")) and time.monotonic() < give_up:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(states.glob("*/state-*.pt"))
    assert workflow.snakemake("--unlock").returncode == 0
    result = workflow.snakemake("--", f"{RUN}/tracking.json")
    assert result.returncode == 0, result.stdout
    return workflow


def planned(workflow, *targets, **changes) -> str:
    """The dry run of a changed config; what is there stays as it is."""
    changed = workflow.folder / "changed.json"
    workflow.write_config(changed, **(ONE_RUN | TRACKING | changes))
    result = workflow.snakemake("--dry-run", "--", *targets, configfile=changed)
    assert result.returncode == 0, result.stdout
    return result.stdout


def test_every_update_of_a_killed_and_resumed_training_stands_there_once(tracked):
    study = tracked.folder / "results/small"
    assert "resuming after update" in (study / "logs/train/bert/bs16/constant/seed1.log").read_text()
    record = read_json(tracked.folder / RUN / "tracking.json")
    (folder,) = (study / "wandb").glob("offline-run-*")
    assert tracked.folder / record["folder"] == folder
    history = [json.loads(line) for line in (tracked.folder / RUN / "history.jsonl").read_text().splitlines()]
    found = rows(stored(folder))
    assert record["rows"] == len(found) == len(history)
    updates = [row["update"] for row in found if "train/loss" in row]
    assert updates == [line["update"] for line in history if line["kind"] == "update"]
    assert updates == list(range(1, updates[-1] + 1))


def test_tracking_is_done_once(tracked):
    assert "Nothing to be done" in planned(tracked, f"{RUN}/tracking.json")


def test_another_mode_or_project_trains_and_evaluates_nothing(tracked):
    for changes in ({"mode": "online"}, {"mode": "offline", "project": "other"}):
        plan = planned(tracked, f"{RUN}/tracking.json", tracking=changes)
        stats = plan.split("Job stats:", 1)[1]
        assert "track " in stats and "train " not in stats and "evaluate " not in stats


def test_the_report_does_not_wait_for_it(tracked):
    assert "track " in planned(tracked, seeds=[1, 2]).split("Job stats:", 1)[1]
    report = planned(tracked, "results/small/report/index.html", seeds=[1, 2]).split("Job stats:", 1)[1]
    assert "page " in report and "track " not in report
    assert "track " not in planned(tracked, seeds=[1, 2], tracking={"mode": "disabled"}).split("Job stats:", 1)[1]


def test_a_failure_names_its_log_and_harms_nothing(tracked):
    """Here a file stands where the folder belongs."""
    wandb = tracked.folder / "results/small/wandb"
    kept = wandb.rename(wandb.with_name("kept"))
    wandb.write_text("in the way")
    changed = tracked.folder / "changed.json"
    tracked.write_config(changed, **(ONE_RUN | {"tracking": {"mode": "offline", "project": "other"}}))
    result = tracked.snakemake("--", f"{RUN}/tracking.json", configfile=changed)
    wandb.unlink()
    kept.rename(wandb)
    assert result.returncode != 0
    assert "Weights & Biases did not take bert/bs16/constant/seed1" in result.stdout
    assert "results/small/logs/track/bert/bs16/constant/seed1.log" in result.stdout
    assert (tracked.folder / RUN / "metrics.json").is_file()
