"""Every job has a spec, a code and a record; a record of something else is noticed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from batchscope.config.study import Study
from batchscope.files import read_json, write_json
from batchscope.provenance.fingerprint import PACKAGE, canonical_json, code_hash, describe_code
from batchscope.provenance.stages import FOLDER, STAGES, read_record, strangers, with_places, write_record

CONFIG: dict[str, Any] = {
    "study": "s",
    "data": {"source": "synthetic"},
    "models": {"bert": {"architecture": "bert"}},
    "target_batch_sizes": [16],
    "lr_policies": {"constant": {"base_lr": 1e-3}},
}
RULES = PACKAGE.parents[1] / "rules"


def test_every_job_of_the_study_has_a_spec() -> None:
    jobs = set(Study.from_mapping(CONFIG).job_specs())
    run = "bert/bs16/constant/seed42"
    of_run = {f"{verb}/{run}" for verb in ("train", "evaluate", "attention", "maps", "track")}
    assert jobs == {"corpus", "split", "audit", "reviews", "tables", "figures", "report"} | of_run | {
        "tokenize/bert",
        "certify/bert",
    }
    assert {job.partition("/")[0] for job in jobs} == set(STAGES)


def test_each_shell_line_hands_on_spec_code_and_record_of_its_own_verb() -> None:
    """The text of a shell line re-runs nothing, so what counts must pass through the params."""
    shells = "".join(path.read_text() for path in sorted(RULES.glob("*.smk"))).split("shell:")[1:]
    for verb in STAGES:
        found = [shell for shell in shells if f"batchscope {verb} " in shell]
        assert len(found) == 1, verb
        wanted = ["--code {params.code}", "--record {params.record:q}"] + ["--spec {params.spec:q}"] * (verb != "audit")
        assert all(option in found[0] for option in wanted), verb
        rules = "".join(path.read_text() for path in RULES.glob("*.smk"))
        assert f'code=CODE["{verb}"]' in rules and f'record=f"{{RECORDS}}/{verb}' in rules


def test_a_grid_of_thousands_stays_plannable() -> None:
    """Snakemake hashes all files of a named input for each of them, scans a list of constraints for every file, and
    works out a job's resources for a parameter function that takes ``threads`` or ``resources``."""
    rules = "".join(path.read_text() for path in RULES.glob("*.smk"))
    assert "of_all_runs(" in rules and not re.search(r"\w+\s*=\s*of_(all_)?runs\w*\(", rules)
    constraints = rules.partition("wildcard_constraints:")[2].partition("\n\n")[0]
    assert all(re.search(rf"{name}=r\"[^\"]*\\d\*\"", constraints) for name in ("batch", "seed"))
    costly = re.findall(r".*lambda [^:]*\b(?:threads|resources)\b.*\n.*", rules)
    assert len(costly) == 1 and "if workflow.remote_exec" in costly[0], costly


def test_places_do_not_count_and_come_back_to_the_job(tmp_path: Path) -> None:
    specs = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "model.safetensors").write_text("weights")
        (tmp_path / place / "reviews.csv").write_text("text,label\na,0\n")
        config = CONFIG | {
            "data": {"source": str(tmp_path / place / "reviews.csv")},
            "models": {"bert": {"checkpoint": str(tmp_path / place)}},
        }
        study = Study.from_mapping(config)
        (tmp_path / place / "more").mkdir()
        specs.append(study.job_specs())
        for job in ("corpus", "tokenize/bert", "certify/bert", "train/bert/bs16/constant/seed42"):
            assert place not in specs[-1][job]
            spec = json.loads(specs[-1][job])
            with_places(spec, study.data_place() if job == "corpus" else study.settings(study.cells()[0]))
            assert place in json.dumps(spec)
    assert {job for job in specs[0] if specs[0][job] != specs[1][job]} == {"report"}, "the page names them"


def record(folder: Path, job: str, spec: Any, code: str) -> None:
    write_record(folder / FOLDER / f"{job}.json", job.partition("/")[0], spec, code)


def test_a_record_brings_the_description_of_its_code(tmp_path: Path) -> None:
    code = code_hash(STAGES["split"].module)
    record(tmp_path, "split", {"seed": 1}, code)
    assert read_record(tmp_path / FOLDER / "split.json") == {"spec": {"seed": 1}, "code": code}
    assert read_json(tmp_path / FOLDER / f"code/{code}.json") == describe_code(STAGES["split"].module)


def test_files_of_another_spec_or_code_are_strangers(tmp_path: Path) -> None:
    job = "train/bert/bs16/constant/seed1"
    specs, codes = {job: canonical_json({"lr": 1, "a": [1.0]})}, {"train": "c"}
    file = tmp_path / "runs/bert/bs16/constant/seed1/train.json"
    write_json(file, {})
    found = lambda: list(strangers(tmp_path, specs, codes))  # noqa: E731
    assert found() == [], "no record, nothing to compare"
    record(tmp_path, job, {"a": [1.0], "lr": 1}, "c")
    assert found() == []
    record(tmp_path, job, {"a": [1.0], "lr": 2}, "c")
    assert found() == [(job, str(file))]
    record(tmp_path, job, {"a": [1.0], "lr": 1}, "d")
    assert found() == [(job, str(file))]
    file.unlink()
    assert found() == [], "Snakemake sees what is missing"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"spec": {}}'])
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    assert read_record(tmp_path / "x.json") is None


def test_a_job_whose_code_is_another_refuses_to_run(tmp_path: Path) -> None:
    from batchscope.cli import main

    spec = canonical_json(Study.from_mapping(CONFIG).corpus_spec())
    words = ["corpus", "--spec", spec, "--output", str(tmp_path / "corpus.parquet")]
    words += ["--record", str(tmp_path / FOLDER / "corpus.json"), "--code"]
    with pytest.raises(SystemExit, match="Start the workflow again"):
        main([*words, "0123456789abcdef"])
    assert not list(tmp_path.iterdir())
    main([*words, code_hash(STAGES["corpus"].module)])
    assert read_record(tmp_path / FOLDER / "corpus.json")
