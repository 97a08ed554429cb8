"""Where nothing can be written any more, every stage says so in one line, and what is finished stays as it is."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import fill, read_only, small_disk_at
from small_workflow import Workflow

from batchscope.cli.main import main
from batchscope.provenance.fingerprint import file_hash

RUN = "bert/bs64/sqrt/seed1"
STUDY = Path("results/small")
JOBS = [
    *("corpus", "split", "tokenize/bert", "audit", "reviews", f"train/{RUN}", f"evaluate/{RUN}", f"attention/{RUN}"),
    *(f"maps/{RUN}", "calibration", "tables", "figures", "report"),
]


@pytest.fixture(scope="module")
def disk(pristine: Workflow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The finished study on a small disk of its own."""
    with small_disk_at(tmp_path_factory.mktemp("mounted") / "disk", "64m") as folder:
        shutil.copytree(pristine.folder, folder, ignore=shutil.ignore_patterns(".snakemake"), dirs_exist_ok=True)
        yield folder


def contents(study: Path) -> dict[Path, str]:
    """Every file but those by which Snakemake keeps the time of a folder, and processes say that they live."""
    return {path: file_hash(path) for path in study.rglob("[!.]*") if path.is_file() and "state" not in path.parts}


def test_read_only_results_can_be_looked_at_and_are_named_by_what_would_write(
    pristine: Workflow, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First in this file: a training that finds its files on the full disk gives them the time of now."""
    monkeypatch.chdir(disk)
    (jobs,) = (STUDY / "jobs").glob("*.json")
    with read_only(disk / "results"):
        for verb in ("tables", "split"):
            with pytest.raises(SystemExit, match=f"batchscope {verb}: Read-only file system: results/small"):
                main([verb, "--jobs", str(jobs), "--job", verb])
        main(["clean"])
        planned = subprocess.run(
            [sys.executable, "-m", "batchscope", "plan", "--configfile", "config.json"],
            env=pristine.environment | {"PYTHONPATH": str(pristine.root / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
    assert planned.returncode == 0, planned.stderr


@pytest.mark.parametrize("job", JOBS)
def test_a_full_disk_is_named_and_finished_work_stays(disk: Path, monkeypatch: pytest.MonkeyPatch, job: str) -> None:
    monkeypatch.chdir(disk)
    before = contents(STUDY)
    (jobs,) = (STUDY / "jobs").glob("*.json")
    ballast = fill(disk)
    try:
        with pytest.raises(SystemExit) as ended:
            main([job.partition("/")[0], "--jobs", str(jobs), "--job", job])
    finally:
        ballast.unlink()
    assert f"the disk {disk} is full (0.0 MiB free" in str(ended.value) and "\n" not in str(ended.value)
    assert contents(STUDY) == before
