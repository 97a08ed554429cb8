"""A job starts only on files that are as earlier jobs left them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jobs import Jobs, jobs_of

from batchscope.files import DamagedFileError, write_text
from batchscope.provenance.inputs import check_inputs, check_written, recorded_inputs
from batchscope.provenance.layout import Layout
from batchscope.provenance.stages import WRITES, read_record, write_record

CONFIG: dict[str, Any] = {
    "study": "s",
    "data": {"source": "synthetic"},
    "models": {"bert": {"architecture": "bert"}},
    "target_batch_sizes": [16],
    "lr_policies": {"flat": {"base_lr": 1e-3}, "same": {"base_lr": 1e-3}, "low": {"base_lr": 1e-4}},
    "seeds": [1],
}
RUN = "bert/bs16/flat/seed1"
LOW = "bert/bs16/low/seed1"


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """Every job of the study has run and written files, which hold their own name."""
    monkeypatch.chdir(tmp_path)
    jobs = jobs_of(tmp_path, CONFIG)
    runs = [f"{verb}/{run}" for run in (RUN, LOW) for verb in ("train", "evaluate", "attention")]
    for job in ("corpus", "split", "tokenize/bert", "audit", "reviews", "certify/bert", *runs, "tables"):
        write_files(jobs.layout, job)
    return jobs


def write_files(layout: Layout, job: str) -> None:
    verb, _, subject = job.partition("/")
    for pattern in WRITES[verb]:
        file = pattern.format(subject).replace("*", "some.csv")
        write_text(layout.study / file, file)
    write_record(layout, job, "{}", "0123456789abcdef")


def test_a_job_starts_on_what_the_jobs_before_it_wrote(jobs: Jobs) -> None:
    for job in ("split", "tokenize/bert", f"train/{RUN}", f"evaluate/{LOW}", f"maps/{RUN}", "tables", "report"):
        check_inputs(jobs.read(), job)
    files = {file for file, _, _ in recorded_inputs(jobs.read(), "tables")}
    assert f"runs/{LOW}/metrics.json" in files and "data/audit.json" in files
    assert not [file for file in files if "checkpoints" in file], "it reads none of them"


@pytest.mark.parametrize(
    ("job", "file"),
    [
        ("split", "data/corpus.parquet"),
        (f"train/{RUN}", "tokens/bert/train.arrow"),
        (f"attention/{RUN}", "tokens/bert/tokenizer/some.csv"),
        (f"evaluate/{LOW}", f"runs/{LOW}/checkpoints/last.safetensors"),
        ("tables", f"runs/{LOW}/predictions.parquet"),
        ("tables", "certificates/bert.json"),
        ("figures", f"runs/{RUN}/attention/attention.npz"),
        ("report", "tables/some.csv"),
    ],
)
def test_another_content_is_refused_by_name(jobs: Jobs, job: str, file: str) -> None:
    content = (jobs.layout.study / file).read_text()
    (jobs.layout.study / file).write_text(content.swapcase())
    with pytest.raises(DamagedFileError, match=f"s/{re.escape(file)} is damaged .it is not as the job .* Delete it"):
        check_inputs(jobs.read(), job)
    (jobs.layout.study / file).write_text(content)
    check_inputs(jobs.read(), job)


def test_what_a_job_does_not_read_may_be_anything(jobs: Jobs) -> None:
    (jobs.layout.run(RUN) / "predictions.parquet").write_text("x")
    for job in (f"maps/{RUN}", f"evaluate/{LOW}", "report"):
        check_inputs(jobs.read(), job)


def test_files_that_no_record_names_are_read_as_they_are(jobs: Jobs) -> None:
    """Results of an earlier version, a damaged record, a deleted file: the stage itself says what it cannot read."""
    record = jobs.layout.record(f"evaluate/{RUN}")
    old = {key: value for key, value in json.loads(record.read_text()).items() if key != "files"}
    (jobs.layout.run(RUN) / "metrics.json").write_text("x")
    for text in (json.dumps(old), "{", json.dumps(old | {"files": None}), json.dumps(old | {"files": ["x"]})):
        record.write_text(text)
        check_inputs(jobs.read(), "tables")
    (jobs.layout.run(LOW) / "metrics.json").unlink()
    check_inputs(jobs.read(), "tables")


def test_a_file_has_one_writer(jobs: Jobs) -> None:
    """`calibration` writes into the folder of the tables at any time: its files are in its own record alone."""
    write_files(jobs.layout, "calibration")
    write_files(jobs.layout, "tables")
    for job, files in (("calibration", WRITES["calibration"]), ("tables", ("tables/some.csv",))):
        record = read_record(jobs.layout.record(job))
        assert record and set(record["files"]) == set(files)


def test_the_files_of_one_job_are_held_to_its_record(jobs: Jobs) -> None:
    changed = jobs.layout.study / "tables/some.csv"
    check_written(jobs.layout, "tables", ["tables/*"])
    write_text(changed, "other")
    check_written(jobs.layout, "tables", ["tables/other.csv"])
    with pytest.raises(DamagedFileError, match=r"tables/some\.csv is damaged \(it is not as the job tables wrote it\)"):
        check_written(jobs.layout, "tables", ["tables/*"])
    jobs.layout.record("tables").unlink()
    check_written(jobs.layout, "tables", ["tables/*"])
