"""The study on a real one-node SLURM cluster that keeps no accounts."""

import subprocess

import pytest
from cluster import SlurmStudy, running_cluster

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """SLURM without a database."""
    with running_cluster("--no-accounting"):
        yield


def test_the_queue_tells_what_became_of_the_jobs(root, tmp_path):
    assert subprocess.run(["sacct"], capture_output=True, check=False).returncode != 0, "there are no accounts"
    study = SlurmStudy(root, tmp_path)
    study.write_config()
    study.run(study.on_slurm("--slurm-status-command", "squeue", "--until", "evaluate"))
    assert (study.run_folder / "metrics.json").stat().st_size > 0
