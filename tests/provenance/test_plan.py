"""What a plan says: differences between specs and codes, in words and for machines; and what it foretells."""

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from jobs import jobs_of

from batchscope.files import write_json, write_text
from batchscope.provenance.code import describe_code
from batchscope.provenance.forecast import COPYING_SECONDS, forecast
from batchscope.provenance.jobs import JobFile
from batchscope.provenance.plan import Machine, Outlook, PlannedJob, changed_code, differences
from batchscope.provenance.plan_view import as_json, as_table, duration, in_words
from batchscope.provenance.stages import STAGES

RUN = "bert/bs64/constant/seed1"


def planned(name: str) -> PlannedJob:
    """A job that Snakemake would run."""
    return PlannedJob(name.partition("/")[0], {}, name, [{"kind": "new"}])


def test_a_mistake_in_the_config_is_told_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    """Snakemake shows a traceback for UTF-16; it takes two seconds to start, as do the libraries of the forecast."""
    (tmp_path / "my.yaml").write_bytes("study: s\n".encode("utf-16"))
    command = [sys.executable, "-X", "importtime", "-m", "batchscope", "plan", "--configfile", "my.yaml"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    *imports, message = told.stderr.splitlines()
    assert told.returncode == 1
    assert message == "batchscope plan: the config my.yaml is not UTF-8 text: save it as UTF-8"
    assert not [line for line in imports if line.endswith((" scipy", " pandas", " pyarrow", " snakemake", " torch"))]
    assert all(line.startswith("import time:") for line in imports)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, ["a.c: 2 → 3"]),
        ({"lr": 3, "epochs": 2}, {"lr": 2, "epochs": 3}, ["epochs: 2 → 3", "lr: 3 → 2"]),
        ({}, {"noise_scale": "full"}, ["noise_scale: unset → full"]),
        (
            {"budget": {"epochs": 5}},
            {"budget": {"updates": 9}},
            ["budget.epochs: 5 → unset", "budget.updates: unset → 9"],
        ),
        ({"betas": [0.9, 0.99]}, {"betas": [0.9, 0.9]}, ["betas: [0.9, 0.99] → [0.9, 0.9]"]),
        ({"cells": [{"seed": 1}]}, {"cells": [{"seed": 1}, {"seed": 2}]}, ["cells: 1 added, 0 removed"]),
        ({"a": [1]}, {"a": [1]}, []),
    ],
)
def test_the_field_that_changed_is_named_with_its_values(old: Any, new: Any, words: list[str]) -> None:
    assert [in_words(cause) for cause in differences(old, new)] == words


def test_the_function_that_changed_is_named(tmp_path: Path) -> None:
    code = deepcopy(describe_code(STAGES["train"].module))
    code["modules"]["batchscope.training.windows"]["epoch_order"] = "another"
    del code["modules"]["batchscope.training.schedule"]["schedule_factor"]
    code["modules"]["batchscope.training.noise"]["gone"] = "x"
    code["libraries"]["torch"] = "1.0"
    write_json(tmp_path / "old.json", code)
    job = f"train/{RUN}"
    assert [in_words(cause) for cause in changed_code(job, tmp_path / "old.json")] == [
        "code removed: training.noise.gone",
        "code added: training.schedule.schedule_factor",
        "code changed: training.windows.epoch_order",
        f"torch: 1.0 → {describe_code(STAGES['train'].module)['libraries']['torch']}",
    ]
    assert [in_words(cause) for cause in changed_code(job, tmp_path / "unknown.json")] == [
        "code changed: training.loop"
    ]


def test_the_table_gathers_jobs_of_one_cause() -> None:
    jobs = [planned(f"train/bert/bs{batch}/constant/seed1") for batch in (1, 2, 3, 4, 5, 6)]
    jobs[0].seconds, jobs[1].reuses, jobs[1].seconds = 61, "results/a", 5
    outlook = Outlook(["2 finished runs were trained elsewhere."], 40.0, Machine(2, 1))
    table = as_table([*jobs, planned("tables")], outlook)
    assert "[bert/bs1/constant/seed1, bert/bs3/constant/seed1" in table and "bs5/constant/seed1 and 1 more]" in table
    assert "taken from results/a" in table and "> 1 min 6 s" in table and "unknown" in table
    assert "7 jobs; 1 min 6 s of work" in table and "of 5 of them there is no earlier measurement" in table
    assert table.endswith("With 2 cores: at least 40 s.\n2 finished runs were trained elsewhere.")
    assert as_table([], Outlook([], None, None)) == "Nothing to run: everything is up to date."
    head, *lines = as_table([*jobs, planned("attention_measures/bert/bs1/constant/seed1")], outlook).splitlines()
    assert {len(line) for line in lines if line.endswith(("unknown", " 6 s"))} == {len(head)}, "columns stay columns"
    told = json.loads(as_json(jobs, outlook))
    assert told["wall_seconds"] == 40 and told["machine"] == {"cores": 2, "gpus": 1}
    assert told["seconds"] == 66 and told["unmeasured"] == 4 and told["jobs"][1]["reuses"] == "results/a"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (61, "1 min 1 s"), (3599.7, "1 h 0 min"), (7320, "2 h 2 min")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


# ------------------------------------------------------------------------------------------------------- forecast


def benchmark(results: Path, job: str, seconds: float, study: str = "old") -> None:
    write_text(results / study / f"benchmarks/{job}.tsv", f"s\th:m:s\n{seconds}\t0:00:01\n")


def finished_run(results: Path, batch: int, seconds: float, **manifest: Any) -> None:
    run = results / f"old/runs/bert/bs{batch}/constant/seed1"
    spec = jobs().plain("train/bert/bs16/constant/seed1") | {"target_batch_size": batch}
    write_json(run / "manifest.json", {"fingerprint": "f", "files": {}, "spec": spec, "driver": None} | manifest)
    facts = {"device": "a CPU", "seconds": seconds, "samples": 1000, "train_examples": 500}
    write_json(run / "train.json", facts)


def jobs(device: str = "cpu", **changes: Any) -> JobFile:
    """The job file of a study called new."""
    config = {
        "study": "new",
        "data": {"source": "synthetic"},
        "models": {name: {"architecture": name} for name in ("bert", "modernbert")},
        "target_batch_sizes": [16, 64],
        "lr_policies": {"constant": {"base_lr": 1e-3}},
        "seeds": [1],
        "budget": {"epochs": 4},
        "device": device,
    } | changes
    return jobs_of(Path(), config).read()


def seconds_of(name: str, study: JobFile) -> float | None:
    job = planned(name)
    forecast([job], study)
    return job.seconds


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("results")


def test_a_stage_takes_as_long_as_the_most_similar_job(results: Path) -> None:
    study = jobs()
    job = f"evaluate/{RUN}"
    assert seconds_of(job, study) is None
    for job_name, seconds in (("evaluate/other/bs1/constant/seed1", 9), ("evaluate/bert/bs1/constant/seed1", 5)):
        benchmark(results, job_name, seconds)
    assert seconds_of("evaluate/third/bs1/constant/seed1", study) == 7
    assert seconds_of(job, study) == 5
    benchmark(results, f"evaluate/{RUN}", 3, study="new")
    assert seconds_of(job, study) == 3
    benchmark(results, "tables", 2)
    assert seconds_of("tables", study) == 2


def test_a_training_goes_at_the_pace_of_its_model(results: Path) -> None:
    study, job = jobs(), f"train/{RUN}"
    assert seconds_of(job, study) is None
    finished_run(results, 16, seconds=100)
    assert seconds_of(job, study) == pytest.approx(4 * 500 * 0.1)
    finished_run(results, 64, seconds=50)
    assert seconds_of(job, study) == pytest.approx(4 * 500 * 0.05), "the same batch size is nearer"
    benchmark(results, "train/bert/bs64/constant/seed1", 57)
    assert seconds_of(job, study) == pytest.approx(4 * 500 * 0.05 + 7), "and it takes time to start"
    assert seconds_of("train/modernbert/bs64/constant/seed1", study) is None
    assert seconds_of(job, jobs(device="cuda")) is None, "a CPU says nothing of a GPU"


def test_finished_work_costs_no_training(results: Path) -> None:
    job = planned(f"train/{RUN}")
    job.reuses = "results/old/runs/x"
    forecast([job], jobs())
    assert job.seconds == COPYING_SECONDS
