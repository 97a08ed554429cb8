"""The study on a real one-node SLURM cluster with accounting."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from cluster import LONG_REST, RUN, SlurmStudy, accounted, running_cluster

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """SLURM with a database."""
    with running_cluster():
        yield


@pytest.fixture(scope="module")
def undisturbed(root, tmp_path_factory) -> SlurmStudy:
    """The training without SLURM, without a break and without rests."""
    study = SlurmStudy(root, tmp_path_factory.mktemp("undisturbed"))
    study.write_config()
    study.run(study.command("--cores", 2, "--until", "train"))
    return study


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str], study: SlurmStudy) -> None:
    """Wait for something to happen while Snakemake runs."""
    give_up = time.monotonic() + 300
    while not happened():
        assert process.poll() is None, study.output
        assert time.monotonic() < give_up, study.output
        time.sleep(0.1)


def test_a_one_minute_limit_is_met_by_retries_on_the_way_to_a_report(undisturbed, root, tmp_path):
    study = SlurmStudy(root, tmp_path, rest=LONG_REST)
    study.write_config()
    study.run(study.on_slurm("--slurm-status-command", "sacct", "--set-resources", "train:runtime=1", "--retries", 12))
    assert (study.results / "report/index.html").stat().st_size > 0

    jobs = accounted(tmp_path)
    trainings = [job for job in jobs if job.rule == "train"]
    assert [job.state for job in trainings][-1] == "COMPLETED"
    assert [job for job in trainings if job.state == "FAILED"], "a minute was enough: nothing was shown"
    assert not [job for job in trainings if job.state == "TIMEOUT"], "each stopped by itself, before SLURM had to"
    assert "resuming after update" in (study.results / f"logs/train/{RUN}.log").read_text()
    assert study.trained() == undisturbed.trained()

    assert {job.rule for job in jobs} == {"train", "certify", "evaluate", "attention"}, (
        "the rest ran where Snakemake does"
    )
    assert all(job.gpus == 1 for job in jobs)
    assert all(before.end <= after.start for before, after in pairwise(jobs)), "two jobs held the one GPU at once"

    again = study.run(study.on_slurm("--dry-run"))
    assert "Nothing to be done" in again, "what grows with the attempts must not count as a change"


def test_a_training_survives_scancel_sigkill_and_preemption(undisturbed, root, tmp_path):
    """A job that SLURM preempts without grace it brings back itself; what fails is Snakemake's to retry."""
    study = SlurmStudy(root, tmp_path, rest=1.0)
    study.write_config()
    for part in ("data", "tokens"):
        shutil.copytree(undisturbed.results / part, study.results / part)
    profile = tmp_path / "profile"
    profile.mkdir()
    text = (root / "profiles/slurm/profile.yaml").read_text()
    (profile / "profile.yaml").write_text(text.replace("slurm-no-requeue:", "slurm-requeue:"))
    process = study.start(study.on_slurm("--until", "train", "--retries", 3, profile=profile))

    def running() -> str:
        return squeue("--states=RUNNING", "--partition=gpu", "--format=%i")

    def has_moved_on_since(states: list[str]) -> bool:
        return bool(running()) and study.states() > states

    wait_until(lambda: has_moved_on_since([]), process, study)
    first = running()
    subprocess.run(["scancel", first], check=True)

    wait_until(lambda: running() not in ("", first), process, study)
    before = study.states()
    wait_until(lambda: has_moved_on_since(before), process, study)
    second = running()
    os.kill(training_process(tmp_path), signal.SIGKILL)

    wait_until(lambda: running() not in ("", first, second), process, study)
    before = study.states()
    wait_until(lambda: has_moved_on_since(before), process, study)
    third = running()
    subprocess.run(["sbatch", "--partition=urgent", "--gpus=1", "--wrap=sleep 1", "--output=/dev/null"], check=True)
    wait_until(lambda: running() != third, process, study)

    assert process.wait(timeout=600) == 0, study.output
    assert study.trained() == undisturbed.trained()
    states = {job.number: [] for job in accounted(tmp_path)}
    for job in accounted(tmp_path):
        states[job.number].append(re.sub(" .*", "", job.state))
    assert states[first] == ["CANCELLED"] and states[second] == ["FAILED"]
    assert states[third][0] in ("FAILED", "PREEMPTED"), (
        "FAILED if it stopped by itself within the partition's grace time"
    )
    assert [state for ends in states.values() for state in ends][-1] == "COMPLETED"


def squeue(*options: str) -> str:
    """The cluster's queue."""
    return subprocess.run(["squeue", "--noheader", *options], capture_output=True, text=True, check=True).stdout.strip()


def training_process(folder: Path) -> int:
    """The process that trains for the study in a folder."""
    found = [
        process.pid
        for process in psutil.process_iter(["cwd", "cmdline"])
        if process.info["cwd"] == str(folder) and (process.info["cmdline"] or [])[1:4] == ["-m", "batchscope", "train"]
    ]
    assert len(found) == 1, f"{len(found)} processes train in {folder}"
    return found[0]
