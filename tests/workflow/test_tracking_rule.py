"""A workflow killed in mid-training, tracked with Weights & Biases: no table differs, and nothing is trained for it."""

import json

import pandas as pd
import pytest
from small_workflow import Workflow, files_without_secrets
from wandb_folders import rows, stored

from batchscope.files import read_json
from batchscope.provenance.fingerprint import file_hash

NAME = "bert/bs16/constant/seed1"
RUN = f"results/small/runs/{NAME}"
TABLE = "results/small/tables/summary.csv"
TRACKING = {"tracking": {"mode": "offline"}, "save_every": 0.001}


@pytest.fixture(scope="module")
def tracked(root, pristine, tmp_path_factory):
    """The small study, killed with its workflow in its last training; the next start finishes and tracks it."""
    workflow = Workflow(root, tmp_path_factory.mktemp("tracked"))
    workflow.take_all_but(pristine, NAME)
    workflow.write_config(**TRACKING)
    workflow.kill_in_mid_training(f"{RUN}/tracking.json")
    assert not (workflow.folder / TABLE).exists()
    second = workflow.snakemake("--", TABLE)  # for all it knows, the first one is still at work
    assert second.returncode != 0 and "cannot be locked" in second.stdout
    assert workflow.snakemake("--unlock").returncode == 0
    result = workflow.snakemake("--", TABLE, f"{RUN}/tracking.json")
    assert result.returncode == 0, result.stdout
    return workflow


def planned(workflow, *targets, **changes) -> str:
    """The dry run of a changed config; what is there stays as it is."""
    changed = workflow.folder / "changed.json"
    workflow.write_config(changed, **(TRACKING | changes))
    return workflow.dry_run("--", *targets, configfile=changed)


def test_a_dag_killed_in_mid_training_finishes_with_the_same_tables(tracked, pristine):
    assert "resuming after update" in (tracked.study / "logs/train/bert/bs16/constant/seed1.log").read_text()
    for table in ("contrasts.csv", "history.parquet"):
        assert file_hash(tracked.study / "tables" / table) == file_hash(pristine.study / "tables" / table)
    summaries = [pd.read_csv(workflow.study / "tables/summary.csv") for workflow in (tracked, pristine)]
    timeless = [summary.drop(columns=summary.filter(regex="second").columns) for summary in summaries]
    pd.testing.assert_frame_equal(*timeless, check_exact=True)


def test_every_update_of_a_killed_and_resumed_training_stands_there_once(tracked):
    record = read_json(tracked.folder / RUN / "tracking.json")
    (folder,) = (tracked.study / "wandb").glob("offline-run-*")
    assert tracked.folder / record["folder"] == folder
    history = [json.loads(line) for line in (tracked.folder / RUN / "history.jsonl").read_text().splitlines()]
    found = rows(stored(folder))
    assert record["rows"] == len(found) == len(history)
    updates = [row["update"] for row in found if "train/loss" in row]
    assert updates == [line["update"] for line in history if line["kind"] == "update"]
    assert updates == list(range(1, updates[-1] + 1))


def test_no_secret_is_in_any_file_of_a_tracked_study(tracked):
    """Its own processes, Snakemake and wandb had the keys of Weights & Biases and of the hub in their environment."""
    files = files_without_secrets(tracked.folder)
    assert [path for path in files if path.suffix == ".wandb"] and [
        path for path in files if ".snakemake" in path.parts
    ]


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
    tracked.write_config(changed, tracking={"mode": "offline", "project": "other"})
    result = tracked.snakemake("--", f"{RUN}/tracking.json", configfile=changed)
    wandb.unlink()
    kept.rename(wandb)
    assert result.returncode != 0
    assert "Weights & Biases did not take bert/bs16/constant/seed1" in result.stdout
    assert "results/small/logs/track/bert/bs16/constant/seed1.log" in result.stdout
    assert (tracked.folder / RUN / "metrics.json").is_file()
