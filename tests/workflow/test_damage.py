"""Whatever happens to a file of a finished study, later stages and `verify` name it: no number changes in silence."""

import contextlib
import random
import shutil
import stat
from pathlib import Path

import pytest
from small_workflow import Workflow, files_without_secrets

from batchscope.cli.main import main
from batchscope.files import DamagedFileError
from batchscope.provenance.inputs import check_inputs, recorded_inputs
from batchscope.provenance.jobs import JobFile, read_job_file
from batchscope.provenance.stages import READS
from batchscope.provenance.verify import verify_run

RUN = "bert/bs64/sqrt/seed1"
STUDY = Path("results/small")


@pytest.fixture(scope="module")
def copy(pristine: Workflow, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished study for this file, whose tests put back what they break."""
    folder = tmp_path_factory.mktemp("damage") / "study"
    shutil.copytree(pristine.folder, folder, ignore=shutil.ignore_patterns(".snakemake"))
    return folder


@pytest.fixture
def jobs(copy: Path, monkeypatch: pytest.MonkeyPatch) -> JobFile:
    monkeypatch.chdir(copy)
    return read_job_file(job_file())


def job_file() -> Path:
    (path,) = (STUDY / "jobs").glob("*.json")
    return path


def damaged(content: bytes, dice: random.Random) -> list[bytes]:
    """A bit flipped at six places, and three shorter files."""
    found = []
    for place in [0, len(content) - 1, *(dice.randrange(len(content)) for _ in range(4))]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << dice.randrange(8)
        found.append(bytes(flipped))
    return [*found, b"", content[: len(content) // 2], content[:-1]]


def jobs_that_read(jobs: JobFile) -> list[str]:
    """A job of each verb that has files to read: that of one run, of the model, or of the study."""
    found = []
    for verb in READS:
        mine = [job for job in (verb, f"{verb}/bert", f"{verb}/{RUN}") if job in jobs.jobs]
        found += mine if mine and list(recorded_inputs(jobs, mine[0])) else []
    return found


def test_any_damage_to_any_file_that_a_stage_reads_is_named(jobs: JobFile) -> None:
    dice, tried = random.Random(0), 0
    writers: dict[str, str] = {}
    for job in jobs_that_read(jobs):
        for file, _, _ in recorded_inputs(jobs, job):
            many = [known for known in writers if Path(known).parent == Path(file).parent]
            if len(many) < 5:  # of the tables and figures, whose records are alike
                writers.setdefault(file, job)
    assert {"data/audit.json", f"runs/{RUN}/predictions.parquet", "certificates/bert.json"} <= writers.keys()
    for file, job in writers.items():
        path, content = STUDY / file, (STUDY / file).read_bytes()
        for harmed in damaged(content, dice):
            path.write_bytes(harmed)
            if harmed != content:
                with pytest.raises(DamagedFileError, match=f"{path} is damaged .*Delete it and start the workflow"):
                    check_inputs(jobs, job)
                tried += 1
        path.write_bytes(content)
        check_inputs(jobs, job)
    assert tried > 200, tried


@pytest.mark.parametrize("verb", [verb for verb in READS if verb not in ("branch", "track")])
def test_the_job_itself_ends_with_that_message_and_writes_nothing(jobs: JobFile, verb: str) -> None:
    job = next((job for job in (verb, f"{verb}/bert", f"{verb}/{RUN}") if job in jobs.jobs), None)
    if job is None:
        pytest.skip(f"the small study has no {verb}")
    file = STUDY / list(recorded_inputs(jobs, job))[-1][0]
    content = file.read_bytes()
    before = times(file)
    file.write_bytes(content[:-1])
    try:
        with pytest.raises(SystemExit, match=f"batchscope {verb}: {file} is damaged"):
            main([verb, "--jobs", str(job_file()), "--job", job])
    finally:
        file.write_bytes(content)
    assert times(file) == before


def times(but: Path) -> dict[Path, int]:
    """File → when it was written; but for one, and for the signs of life of processes."""
    files = (path for path in STUDY.rglob("*") if path.is_file() and "state" not in path.parts and path != but)
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_changed_job_file_is_refused(jobs: JobFile) -> None:
    """Another digit would be another learning rate."""
    path, content = job_file(), job_file().read_bytes()
    for harmed in damaged(content, random.Random(1)):
        path.write_bytes(harmed)
        with pytest.raises(SystemExit, match=f"batchscope split: cannot read the job file {path}: start the workflow"):
            main(["split", "--jobs", str(path), "--job", "split"])
    path.write_bytes(content)


VERIFIED = ("manifest.json", "metrics.json", "predictions.parquet", "train.json", "attention/measures.json")


@pytest.mark.parametrize("name", VERIFIED)
def test_verify_finds_any_damage_to_a_run(jobs: JobFile, name: str) -> None:
    path = STUDY / "runs" / RUN / name
    content = path.read_bytes()
    for harmed in damaged(content, random.Random(name)):
        path.write_bytes(harmed)
        checks = verify_run(STUDY / "runs" / RUN, "cpu")
        assert not checks[0].passed and str(path) in checks[0].detail
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["manifest.json", "metrics.json", "predictions.parquet"])
def test_verify_stumbles_over_nothing_where_no_record_has_hashes(
    jobs: JobFile, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results of an earlier version: what it reads is checked as it is read."""
    monkeypatch.setattr("batchscope.provenance.verify._recorded", lambda layout, run: {})
    monkeypatch.setattr("batchscope.provenance.verify.predict", _no_prediction)
    path = STUDY / "runs" / RUN / name
    content, dice = path.read_bytes(), random.Random(name)
    for _ in range(2):
        for harmed in damaged(content, dice):
            path.write_bytes(harmed)
            with contextlib.suppress(NotNeededError):
                assert verify_run(STUDY / "runs" / RUN, "cpu")
    path.write_bytes(content)


class NotNeededError(Exception):
    """Raised where verify would predict, which this file need not wait for."""


def _no_prediction(*_: object) -> None:
    raise NotNeededError


# ---------------------------------------------------------------------------------------------- what is written


def test_no_secret_is_in_any_file_or_command_line(pristine: Workflow) -> None:
    """The study ran with the keys of Weights & Biases and of the hub in its environment."""
    commands = (pristine.folder / "command_lines.txt").read_text()
    for verb in ("train", "evaluate", "tables", "report"):
        assert f"-m batchscope {verb} --jobs results/small/jobs/" in commands
    assert len(files_without_secrets(pristine.folder)) > 150


def test_files_have_the_permissions_that_a_new_file_has(pristine: Workflow, tmp_path: Path) -> None:
    """Some libraries write files that only their owner can read: a colleague could not look at the study."""
    (tmp_path / "new").touch()
    (tmp_path / "folder").mkdir()
    usual = {kind: stat.S_IMODE((tmp_path / name).stat().st_mode) for kind, name in ((False, "new"), (True, "folder"))}
    study = pristine.folder / STUDY
    other = {path: oct(path.stat().st_mode) for path in study.rglob("*") if _mode(path) != usual[path.is_dir()]}
    assert not other


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
