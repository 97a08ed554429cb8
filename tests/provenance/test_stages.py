"""Every job has a spec, a code and a record; a record of something else is noticed."""

from pathlib import Path
from typing import Any

import pytest
from jobs import jobs_of

from batchscope.cli.main import main
from batchscope.config.study import Study
from batchscope.errors import UserError
from batchscope.files import read_json, write_json
from batchscope.provenance.code import code_hash, describe_code
from batchscope.provenance.fingerprint import canonical_json, digest
from batchscope.provenance.jobs import read_job_file
from batchscope.provenance.layout import Layout
from batchscope.provenance.stages import STAGES, read_record, stale_jobs, write_record

CONFIG: dict[str, Any] = {
    "study": "s",
    "data": {"source": "synthetic"},
    "models": {"bert": {"architecture": "bert"}},
    "target_batch_sizes": [16],
    "lr_policies": {"constant": {"base_lr": 1e-3}},
}


def test_every_job_of_the_study_has_a_spec() -> None:
    jobs = set(Study.from_mapping(CONFIG | {"branch": {"at": [64], "samples": 512}}).job_specs())
    run = "bert/bs16/constant/seed42"
    of_run = {f"{verb}/{run}" for verb in ("train", "branch", "evaluate", "attention", "maps", "track")}
    assert jobs == {"corpus", "split", "audit", "reviews", "calibration", "tables", "figures", "report"} | of_run | {
        "tokenize/bert",
        "certify/bert",
    }
    measured = CONFIG | {
        "branch": {"at": [64], "samples": 512},
        "insight": {name: {"enabled": True} for name in ("attention", "errors", "geometry", "cartography")},
        "keep": "all",
    }
    further = {"errors", "embedding", "divergence", "geometry", "cartography"}
    per_run = ("features", "attention_measures", "geometry_measures", "cartography_measures")
    further |= {f"{verb}/{run}" for verb in per_run}
    assert set(Study.from_mapping(measured).job_specs()) == jobs | further
    assert {job.partition("/")[0] for job in jobs | further} == set(STAGES)


def test_what_thousands_of_jobs_share_is_in_the_job_file_once(tmp_path: Path) -> None:
    study = jobs_of(tmp_path, CONFIG | {"seeds": list(range(300))}).read()
    runs = study.subjects("evaluate")
    assert len(runs) == 300
    assert len({study.jobs[f"evaluate/{run}"] for run in runs}) == 1
    assert len({study.jobs[f"train/{run}"] for run in runs}) == 300


def test_the_job_file_gives_back_every_spec(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, CONFIG | {"attention": {"texts": ["{amount} ${HOME} \\frac{a}{b}"]}})
    study = jobs.read()
    for name, spec in jobs.study.job_specs().items():
        assert study.spec(name, type(spec)) == spec
        assert study.identity(name) == spec.identity()
    assert study.settings == jobs.study.train_settings()
    with pytest.raises(UserError, match="has no job train/bert/bs17"):
        study.plain("train/bert/bs17/constant/seed1")


def test_another_config_writes_another_job_file_and_leaves_the_first(tmp_path: Path) -> None:
    first = jobs_of(tmp_path, CONFIG).file()
    content = first.read_bytes()
    assert jobs_of(tmp_path, CONFIG).file() == first
    assert jobs_of(tmp_path, CONFIG | {"seeds": [1, 2]}).file() != first
    assert first.read_bytes() == content


@pytest.mark.parametrize("content", ["", "{", "[]", '{"study": "s"}', "null"])
def test_a_damaged_job_file_is_one_message(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match="start the workflow again"):
        read_job_file(tmp_path / "x.json")
    with pytest.raises(UserError, match="start the workflow again"):
        read_job_file(tmp_path / "missing.json")


def test_paths_do_not_count_where_the_content_is_named(tmp_path: Path) -> None:
    identities = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "model.safetensors").write_text("weights")
        (tmp_path / place / "reviews.csv").write_text("text,label\na,0\n")
        config = CONFIG | {
            "data": {"source": str(tmp_path / place / "reviews.csv")},
            "models": {"bert": {"checkpoint": str(tmp_path / place)}},
        }
        specs = Study.from_mapping(config).job_specs()
        for job in ("corpus", "tokenize/bert", "certify/bert", "train/bert/bs16/constant/seed42"):
            assert place in str(specs[job].plain()) and place not in specs[job].identity()
        identities.append({job: spec.identity() for job, spec in specs.items()})
    here, there = identities
    assert {job for job in here if here[job] != there[job]} == {"report"}, "the page names them"


def record(folder: Path, job: str, spec: Any, code: str) -> None:
    write_record(Layout(folder), job, canonical_json(spec), code)


def test_a_record_brings_the_description_of_its_code(tmp_path: Path) -> None:
    code = code_hash(STAGES["split"].module)
    record(tmp_path, "split", {"seed": 1}, code)
    assert read_record(Layout(tmp_path).record("split")) == {"spec": {"seed": 1}, "code": code, "files": {}}
    assert read_json(Layout(tmp_path).code_record(code)) == describe_code(STAGES["split"].module)


def test_files_of_another_spec_or_code_are_stale(tmp_path: Path) -> None:
    job = "train/bert/bs16/constant/seed1"
    specs, codes = {job: digest(canonical_json({"lr": 1, "a": [1.0]}))}, {"train": "c"}
    file = tmp_path / "runs/bert/bs16/constant/seed1/train.json"
    write_json(file, {})
    found = lambda: list(stale_jobs(Layout(tmp_path), specs, codes))  # noqa: E731
    assert found() == [], "no record, nothing to compare"
    record(tmp_path, job, {"a": [1.0], "lr": 1}, "c")
    assert found() == []
    record(tmp_path, job, {"a": [1.0], "lr": 2}, "c")
    assert found() == [(job, str(file))]
    record(tmp_path, job, {"a": [1.0], "lr": 1}, "d")
    assert found() == [(job, str(file))]
    file.unlink()
    assert found() == [], "Snakemake sees what is missing"


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", '{"spec": {}}'),
        *('{"spec": {}, "code": [1]}', '{"spec": [], "code": "c"}', '{"spec": {}, "code": "c", "files": {"a": 1}}'),
    ],
)
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    assert read_record(tmp_path / "x.json") is None


def test_a_job_whose_code_is_another_refuses_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = jobs_of(tmp_path, CONFIG)
    words = ["corpus", "--job", "corpus", "--jobs"]
    jobs.codes["corpus"] = "0123456789abcdef"
    with pytest.raises(SystemExit, match="Start the workflow again"):
        main([*words, str(jobs.file())])
    assert not jobs.layout.corpus.exists()
    jobs.codes["corpus"] = code_hash(STAGES["corpus"].module)
    main([*words, str(jobs.file())])
    assert jobs.layout.corpus.is_file() and read_record(jobs.layout.record("corpus"))


def test_a_job_of_another_verb_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--job split is not a job of `batchscope corpus`"):
        main(["corpus", "--jobs", str(jobs_of(tmp_path, CONFIG).file()), "--job", "split"])
