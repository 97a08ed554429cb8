"""What became of the jobs of a study, as its files tell whoever watches."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
from jobs import RUN, Jobs, jobs_of
from processes import process
from small import tiny_config

from batchscope.files import write_json, write_text
from batchscope.provenance.layout import FINGERPRINTS
from batchscope.provenance.stages import write_record
from batchscope.watch.ahead import Forecaster
from batchscope.watch.frame import frame_of
from batchscope.watch.states import CONFIRMING_SECONDS, SILENT_SECONDS, Look, State, Watcher
from batchscope.watch.tree import Tree

TRAIN = f"train/{RUN}"


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    """A study whose workflow was started, and no job of it."""
    study = jobs_of(tmp_path, tiny_config())
    study.file()
    return study


def finish(jobs: Jobs, job: str, output: str) -> None:
    """Leave what a job leaves that succeeds."""
    read = jobs.read()
    write_text(jobs.layout.study / output, "made")
    write_record(jobs.layout, job, read.identity(job), read.code(job))


def words(look: Look, jobs: Jobs) -> str:
    """The frame as text."""
    return "\n".join(line.plain for line in frame_of(look, jobs.layout, Forecaster()).whole())


def state_with(jobs: Jobs, **changes: object) -> State:
    """The state of a training whose process wrote this."""
    write_json(jobs.layout.process(TRAIN), process(jobs, **changes))
    return Watcher(jobs.layout).look().states[TRAIN]


# --------------------------------------------------------------------------------------------------------- done


def test_a_job_is_done_when_its_files_were_made_of_what_the_config_says(jobs: Jobs) -> None:
    watcher = Watcher(jobs.layout)
    states = watcher.look().states
    assert set(states.values()) == {"to do"} and "train/bert/bs16/constant/seed1" in states
    finish(jobs, TRAIN, f"runs/{RUN}/train.json")
    assert watcher.look().states[TRAIN] == "done"
    record = json.loads(jobs.layout.record(TRAIN).read_text())
    write_json(jobs.layout.record(TRAIN), record | {"code": "another"})
    assert watcher.look().states[TRAIN] == "to do"
    write_json(jobs.layout.record(TRAIN), record | {"spec": {**record["spec"], "seed": 2}})
    assert watcher.look().states[TRAIN] == "to do"
    write_json(jobs.layout.record(TRAIN), record)
    assert watcher.look().states[TRAIN] == "done"
    shutil.rmtree(jobs.layout.study / FINGERPRINTS)
    assert watcher.look().states[TRAIN] == "to do"


def test_a_job_whose_file_is_gone_is_to_do(jobs: Jobs) -> None:
    finish(jobs, TRAIN, f"runs/{RUN}/train.json")
    (jobs.layout.run(RUN) / "train.json").unlink()
    assert Watcher(jobs.layout).look().states[TRAIN] == "to do"


def test_a_start_with_another_config_is_followed(jobs: Jobs) -> None:
    finish(jobs, TRAIN, f"runs/{RUN}/train.json")
    watcher = Watcher(jobs.layout)
    before = watcher.look().states
    changed = jobs_of(jobs.folder, tiny_config(target_batch_sizes=[16, 40, 64], seeds=[1, 2]))
    os.utime(changed.file(), (2e9, 2e9))
    after = watcher.look().states
    assert after[TRAIN] == "done" and len(after) > len(before)
    os.utime(jobs.file(), (3e9, 3e9))
    assert watcher.look().states == before


def test_maps_and_tracking_that_nobody_asked_for_are_no_jobs_of_the_plan(jobs: Jobs) -> None:
    several = jobs_of(jobs.folder, tiny_config(seeds=[2, 1]))
    os.utime(several.file(), (2e9, 2e9))
    states = Watcher(several.layout).look().states
    assert {name.rpartition("/")[2] for name in states if name.startswith("maps/")} == {"seed2"}
    assert not [name for name in states if name.startswith("track/")]


# ---------------------------------------------------------------------------------------------------- processes


def test_a_living_process_runs_its_job_and_a_number_in_use_again_does_not(jobs: Jobs) -> None:
    assert state_with(jobs) == "running"
    assert state_with(jobs, phase="waiting") == "waiting"
    assert state_with(jobs, started_ticks=1) == "killed", "another process has its number now"
    assert state_with(jobs, pid=2**22 + 1) == "killed"
    assert state_with(jobs, phase="failed", message="no such file") == "failed"
    assert state_with(jobs, phase="stopped") == "stopped"


def test_an_end_under_another_config_is_no_longer_told(jobs: Jobs) -> None:
    assert state_with(jobs, phase="failed", job_file="results/tiny/jobs/0123.json") == "to do"
    assert state_with(jobs, pid=2**22 + 1, job_file="results/tiny/jobs/0123.json") == "to do"
    assert state_with(jobs, job_file="results/tiny/jobs/0123.json") == "running"


def test_a_process_on_another_machine_is_silent_only_when_its_file_stays_the_same(jobs: Jobs) -> None:
    """Whatever the clocks of two machines and of a file server say of each other."""
    clock, timer, path = Clock(), Clock(), jobs.layout.process(TRAIN)

    def beat(number: int, written: float) -> None:
        write_json(path, process(jobs, machine="another", pid=1, host="node7", slurm_job="42", beat=number))
        os.utime(path, (written, written))

    watcher = Watcher(jobs.layout, clock, timer)
    clock.now = 1000.0
    beat(1, 1000 - 2 * SILENT_SECONDS)
    look = watcher.look()
    assert (look.states[TRAIN], look.doubtful) == ("running", True), "its clock may be slow"
    timer.now += CONFIRMING_SECONDS
    look = watcher.look()
    assert (look.states[TRAIN], look.doubtful) == ("silent", False)
    assert "process 1 on node7 (SLURM job 42) has not written since then" in words(look, jobs)
    beat(2, 1000 - 2 * SILENT_SECONDS)
    assert watcher.look().states[TRAIN] == "running", "it has written again"
    beat(3, 5000)
    assert (watcher.look().states[TRAIN], watcher.look().doubtful) == ("running", False), "its clock is fast"
    timer.now += SILENT_SECONDS + 1
    assert watcher.look().states[TRAIN] == "silent"


def test_a_log_without_a_process_tells_how_the_job_ended(jobs: Jobs) -> None:
    log, clock = jobs.layout.log(TRAIN), Clock()
    write_text(log, "python: command not found\n")
    clock.now = log.stat().st_mtime + 1
    watcher = Watcher(jobs.layout, clock)
    assert watcher.look().states[TRAIN] == "running", "its process may be about to start"
    clock.now += 60
    look = watcher.look()
    assert look.states[TRAIN] == "failed"
    assert "│ python: command not found" in words(look, jobs)
    write_text(log, "10:00:00 batchscope train: done in 3.20 s (start-up 1.00 s)\n")
    os.utime(log, (clock.now, clock.now))
    assert watcher.look().states[TRAIN] == "to do", "it was done, and of something else"
    write_text(log, "killed\n")
    os.utime(log, (1, 1))
    assert watcher.look().states[TRAIN] == "to do", "that was before the workflow's last start"


def test_a_damaged_file_of_a_process_hides_nothing_else(jobs: Jobs) -> None:
    write_text(jobs.layout.process(TRAIN), "{")
    write_json(jobs.layout.process("train/modernbert/bs16/constant/seed1"), process(jobs))
    states = Watcher(jobs.layout).look().states
    assert (states[TRAIN], states["train/modernbert/bs16/constant/seed1"]) == ("to do", "running")


# ------------------------------------------------------------------------------------------------------- the tree


def reference_files(root: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder, found by walking it whole."""
    return {
        path.relative_to(root).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_the_tree_sees_every_change_that_a_whole_walk_sees(tmp_path: Path) -> None:
    dice, root = random.Random(4), tmp_path / "root"
    tree, known = Tree(root), dict[str, tuple[int, int]]()
    assert tree.changes() == {}, "there is no such folder yet"
    for step in range(120):
        for _ in range(dice.randrange(3)):
            path = root / "/".join(dice.choice("ab") for _ in range(dice.randint(1, 3))) / f"{dice.choice('xyz')}.json"
            if dice.random() < 0.6:
                write_text(path, str(step))
            elif dice.random() < 0.7:
                path.unlink(missing_ok=True)
            else:
                shutil.rmtree(path.parent, ignore_errors=True)
        for name, stamp in tree.changes().items():
            if stamp is None:
                del known[name]
            else:
                known[name] = stamp[:2]
        assert known == (reference_files(root) if root.exists() else {})


def test_an_unchanged_folder_is_listed_no_more(jobs: Jobs) -> None:
    watcher = Watcher(jobs.layout)
    finish(jobs, TRAIN, f"runs/{RUN}/train.json")
    watcher.look(), watcher.look()
    listed = watcher._records.listed
    watcher.look()
    assert watcher._records.listed == listed
    finish(jobs, f"evaluate/{RUN}", f"runs/{RUN}/metrics.json")
    assert watcher.look().states[f"evaluate/{RUN}"] == "done"
    assert watcher._records.listed < listed + 8


SAID = {"update": 1, "epoch": 1, "samples": 8, "loss": 0.7, "accuracy": 0.5, "idle_seconds": 0.0}


@pytest.mark.parametrize(
    "changes",
    [
        *({"phase": 7}, {"phase": "resting"}, {"host": None}, {"started": "noon"}, {"started": float("nan")}),
        *({"beat": None}, {"job_file": 7}, {"phase": "failed", "message": 7}, {"slurm_job": 7}, {"pid": 10**400}),
    ],
)
def test_a_process_that_says_nonsense_is_left_to_its_log(jobs: Jobs, changes: dict[str, object]) -> None:
    path = jobs.layout.process(TRAIN)
    write_text(path, json.dumps(process(jobs) | changes))
    look = Watcher(jobs.layout).look()
    assert look.states[TRAIN] == "to do" and "to do" in words(look, jobs)


@pytest.mark.parametrize(
    "progress",
    [
        *(7, [], {}, SAID | {"samples": None}, SAID | {"samples_per_second": "fast"}, SAID | {"loss": float("inf")}),
        *(SAID | {"samples_per_second": float("nan")}, SAID | {"validation": {"loss": 1.0}}),
    ],
)
def test_a_progress_that_is_not_whole_is_left_out(jobs: Jobs, progress: object) -> None:
    write_text(jobs.layout.process(TRAIN), json.dumps(process(jobs, progress=progress)))
    look = Watcher(jobs.layout).look()
    assert look.states[TRAIN] == "running" and look.active[TRAIN].progress is None
    assert "running" in words(look, jobs)
