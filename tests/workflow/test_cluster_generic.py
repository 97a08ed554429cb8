"""profiles/cluster-generic: a real training through its submit script, and what its three scripts say of a job."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batchscope.files import read_json

PROFILE = Path("profiles/cluster-generic")


def script(name: str, *arguments: str, folder: Path) -> str:
    """What one of the profile's scripts prints."""
    command = ["sh", folder / PROFILE / f"{name}.sh", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


@pytest.fixture
def site(root: Path, tmp_path: Path) -> Path:
    """A folder with the profile, as a clone has it."""
    shutil.copytree(root / PROFILE, tmp_path / PROFILE)
    return tmp_path


@pytest.mark.parametrize(("job", "end"), [("exit 0", "success"), ("exit 3", "failed"), ("kill -9 $$", "failed")])
def test_the_scripts_tell_how_a_job_ended(site: Path, job: str, end: str):
    (site / "job.sh").write_text(f"while [ ! -e go ]; do sleep 0.05; done\n{job}\n")
    number = script("submit", "train", "1", "0", "100", "1", "job.sh", folder=site)
    assert script("status", number, folder=site) == "running"
    (site / "go").touch()
    deadline = time.monotonic() + 120
    while (status := script("status", number, folder=site)) == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert status == end


def test_a_cancelled_job_may_save_its_state_and_has_failed(site: Path):
    (site / "job.sh").write_text("trap 'touch saved; exit 0' TERM\ntouch began\nwhile true; do sleep 0.05; done\n")
    number = script("submit", "train", "1", "0", "100", "1", "job.sh", folder=site)
    while not (site / "began").exists():
        time.sleep(0.05)
    subprocess.run([site / PROFILE / "cancel.sh", number], cwd=site, check=True, timeout=30)
    while script("status", number, folder=site) == "running":
        time.sleep(0.05)
    assert script("status", number, folder=site) == "failed"
    assert (site / "saved").exists()


def test_a_training_is_submitted_and_its_tokens_are_made_at_once(site: Path, workflow):
    """What belongs to the login node is not submitted. The path of Python holds a blank and a quote."""
    (site / "it's here").symlink_to(sys.prefix)
    workflow.write_config(target_batch_sizes=[64])
    run = "results/small/runs/bert/bs64/constant/seed1"
    _, *command = workflow.command(
        "--workflow-profile", str(PROFILE), "--seconds-between-status-checks", "1", "--", run + "/train.json"
    )
    result = subprocess.run(
        [str(site / "it's here/bin/python"), *command],
        cwd=site,
        env=workflow.environment | {"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout
    assert read_json(workflow.folder / run / "train.json")
    submitted = [path.name.partition(".")[0] for path in (site / ".snakemake/cluster-generic").iterdir()]
    assert submitted == ["train"]
