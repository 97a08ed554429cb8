"""The whole DAG under real Snakemake."""

import json
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from small_workflow import REFERENCE

from batchscope.files import read_json


def jobs(output: str) -> dict[str, int]:
    """Rule → number of jobs, from Snakemake's table of a dry run."""
    table = output.split("Job stats:", 1)[1].split("total", 1)[0]
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)}


def test_the_reference_study_has_exactly_ten_trainings(workflow):
    counts = jobs(workflow.dry_run("--resources", "gpu=1", configfile=Path("config/config.yaml")))
    assert counts["train"] == counts["evaluate"] == counts["attention"] == counts["maps"] == 10
    assert counts["tokenize"] == 2


def test_a_finished_study_has_everything_it_promises(finished):
    study = finished.folder / "results/small"
    for name in (
        "report/index.html",
        "report/summary.md",
        "tables/results.parquet",
        "data/audit.json",
        "certificates/bert.json",
    ):
        assert (study / name).stat().st_size > 0
    runs = sorted(path.parent.relative_to(study / "runs").as_posix() for path in study.glob("runs/**/train.json"))
    assert runs == ["bert/bs16/constant/seed1", "bert/bs64/constant/seed1", "bert/bs64/sqrt/seed1"]
    results = pd.read_parquet(study / "tables/results.parquet")
    assert len(results) == 4
    for _, cell in results.iterrows():
        scores = read_json(study / "runs" / cell["run"] / "metrics.json")["test"]["best"]
        assert cell["test_accuracy"] == scores["correct"] / scores["examples"]
    assert not [path for path in study.rglob("state/**/*") if path.is_file()], "a finished run leaves no state behind"


def test_a_training_spares_its_later_stages_the_start(finished):
    """They collect what it left, unless its attention came before the reviews were chosen."""
    logs = finished.folder / "results/small/logs"
    for log in logs.glob("train/**/*.log"):
        for stage in re.findall(r"(\w+): computed in .*, ready for its own job", log.read_text()):
            collected = logs / stage / log.relative_to(logs / "train")
            assert "the training of this run has computed this already" in collected.read_text()
    assert "evaluate: computed in" in "".join(log.read_text() for log in logs.glob("train/**/*.log"))


def test_a_finished_study_is_left_alone(finished):
    result = finished.snakemake()
    assert result.returncode == 0
    assert "Nothing to be done" in result.stdout


BRACES = "{amount} costs ${HOME}, or \\frac{a}{b} of {wildcards.model} {{x}}"


def test_braces_in_any_text_of_the_config_are_text(workflow):
    """Not wildcards of Snakemake, and not variables of the shell, which gets none of them."""
    source, text, label = "re{views} ${HOME} 'of' mine.jsonl", "the {text}", "${label}"
    workflow.write_config(
        data={"source": source, "text": text, "label": label, "max_length": 24},
        attention={"texts": [BRACES]},
        report={"title": BRACES},
    )
    reviews = [json.loads(line) for line in (workflow.folder / "reviews.jsonl").read_text().splitlines()]
    renamed = [{text: review["text"], label: review["label"]} for review in reviews]
    (workflow.folder / source).write_text("".join(json.dumps(review) + "\n" for review in renamed))
    result = workflow.snakemake("--until", "reviews")
    assert result.returncode == 0, result.stdout
    assert "amount" not in workflow.dry_run("--printshellcmds")
    chosen = read_json(workflow.folder / "results/small/data/reviews.json")
    assert chosen["reviews"][0]["text"] == BRACES


def test_a_dry_run_or_a_plan_of_another_config_leaves_what_jobs_read(finished):
    folder = finished.folder / "results/small/jobs"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    wanted = finished.folder / "other.json"
    finished.write_config(wanted, seeds=[1, 2, 3], optimizer={"eps": 1e-7})
    finished.dry_run(configfile=wanted)
    plan = subprocess.run(
        [sys.executable, "-m", "batchscope", "plan", wanted],
        cwd=finished.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert plan.returncode == 0 and "optimizer.eps: 1e-08 → 1e-07" in plan.stdout, plan.stdout + plan.stderr
    assert {path: path.read_bytes() for path in before} == before


def test_maps_of_any_run_of_the_study_can_be_asked_for(finished):
    wanted = finished.folder / "changed.json"
    finished.write_config(wanted, seeds=[1, 2])
    run = "results/small/runs/bert/bs16/constant/seed"
    asked_for = finished.dry_run(f"{run}2/attention/maps", configfile=wanted)
    assert jobs(asked_for) == {"train": 1, "attention": 1, "maps": 1}
    result = finished.snakemake("--dry-run", f"{run}3/metrics.json", configfile=wanted)
    assert result.returncode != 0
    assert "the study has no run bert/bs16/constant/seed3" in result.stdout
    maps = (finished.folder / f"{run}1/attention/maps").glob("*.png")
    assert {path.name.rpartition("_")[2] for path in maps} == {"last.png", "all.png", "heads.png"}


def test_the_snakemake_report_holds_the_figures(finished):
    result = finished.snakemake("--report", str(finished.folder / "out.zip"))
    assert result.returncode == 0, result.stdout
    names = zipfile.ZipFile(finished.folder / "out.zip").namelist()
    assert any(name.endswith("report.html") for name in names)
    assert sum(name.endswith(".png") for name in names) >= 10


def test_a_failed_run_leaves_the_others_and_names_its_log(workflow, pristine):
    workflow.take_data_of(pristine)
    workflow.write_config(lr_policies={"good": {"base_lr": 1e-3}, "bad": {"base_lr": 1e30}}, target_batch_sizes=[16])
    result = workflow.snakemake("--until", "evaluate")
    assert result.returncode != 0
    study = workflow.folder / "results/small"
    assert (study / "runs/bert/bs16/good/seed1/metrics.json").is_file()
    assert not (study / "runs/bert/bs16/bad/seed1/train.json").exists()
    log = "results/small/logs/train/bert/bs16/bad/seed1.log"
    assert log in result.stdout
    message = (workflow.folder / log).read_text()
    assert "Lower the learning rate" in message and "Traceback" not in message
    assert "Lower the learning rate" in result.stdout, "the log is shown where the user looks"
    assert result.stdout.count("--job train/bert/bs16/bad/seed1") == 1, "the command is shown once"
    for words in ("Cannot restore", "no backup found", "Traceback", "CalledProcessError"):
        assert words not in result.stdout


def test_a_mistake_in_the_config_is_one_message_without_a_traceback(workflow):
    workflow.write_config(target_batch_size=[3])
    result = workflow.snakemake("--dry-run")
    assert result.returncode != 0
    assert "target_batch_size: unknown key; did you mean `target_batch_sizes`?" in result.stdout
    assert "Traceback" not in result.stdout


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (b"\nseeds: [1]\n", "the key `seeds` is there twice"),
        (b"\n# M\xfcller\n", "is not UTF-8 text: save it as UTF-8"),
    ],
)
def test_what_snakemake_would_not_see_in_the_default_config_is_told(root, workflow, tmp_path, mistake, told):
    clone = tmp_path / "clone"
    (clone / "config").mkdir(parents=True)
    for name in ("Snakefile", "rules", "src", "workflow"):
        (clone / name).symlink_to(root / name)
    reference = (root / "config/config.yaml").read_bytes()
    workflow = replace(workflow, root=clone)
    for text, status in ((reference, 0), (reference + mistake, 1)):
        (clone / "config/config.yaml").write_bytes(text)
        result = workflow.snakemake("--dry-run", configfile=REFERENCE)
        assert result.returncode == status
        assert (told in result.stdout) == bool(status) and "Traceback" not in result.stdout
