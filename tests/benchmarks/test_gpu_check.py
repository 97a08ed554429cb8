"""The check of a GPU, seen to work on a CPU; on a GPU its checks are tests."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from checks_that_end_badly import dies, hangs, holds, is_wrong

from benchmarks import gpu_check
from benchmarks.cases import CASES, OURS, TRAINER
from benchmarks.gpu import checks, isolated, speed
from benchmarks.gpu.checks import CHECKS, Check
from benchmarks.gpu.isolated import Processes
from benchmarks.tables import BEGIN, END, render

ROOT = Path(__file__).resolve().parents[2]
HIDDEN = ("snakemake", "datasets", "pandas", "sklearn", "wandb", "lightning", "pytest")
HIDING = f"""
import sys
from importlib.machinery import PathFinder

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {HIDDEN} else super().find_spec(name, path, target)

sys.meta_path = [Hiding if finder is PathFinder else finder for finder in sys.meta_path]
"""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("check", CHECKS, ids=[check.name for check in CHECKS])
def test_what_must_hold_on_a_gpu(check, tmp_path):
    if reason := gpu_check.why_not(check.needs, "cuda", torch.cuda.device_count()):
        pytest.skip(reason)
    outcome = Processes().call(check.run, torch.device("cuda"), tmp_path, limit=300)
    assert outcome.error is None, outcome.error


def test_the_whole_of_it_runs_on_a_cpu_with_the_package_s_libraries_alone(tmp_path):
    """Neither Snakemake nor ``datasets`` nor pytest: hidden from every process of it."""
    (tmp_path / "hiding").mkdir()
    (tmp_path / "hiding/sitecustomize.py").write_text(HIDING)
    output = tmp_path / "results/gpu.json"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (tmp_path / "hiding", ROOT / "src", ROOT)))}
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--device", "cpu", "--output", output]
    done = subprocess.run(map(str, command), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(output.read_text())
    for check, row in zip(CHECKS, found["checks"], strict=True):
        expected = ("passed", None) if check.needs == "any device" else ("not run", "no CUDA device")
        assert (row["status"], row.get("reason")) == expected, row
    [measured] = found["cases"]["tiny-32"]["rounds"]
    assert list(measured) == [OURS.label, TRAINER.label]
    assert all(one["samples_per_second"] > 0 and len(one["update_seconds"]) == 2 for one in measured.values())
    assert found["cases"]["tiny-32"]["gradients"]["trainer"]["passed"]
    assert found["cases"]["tiny-32"]["corpus"].endswith("random weights")
    assert not found["not_measured"] and not found["failed"]


# ---------------------------------------------------------------------------------------- what fails stops nothing


@pytest.fixture
def light(monkeypatch):
    """Processes that load no more than these checks need."""
    monkeypatch.setattr(isolated, "PRELOADED", ["torch"])


def checked(tmp_path, budget: float, *runs) -> gpu_check.Report:
    """The report of these checks on a CPU."""
    report = gpu_check.Report(tmp_path / "gpu.json", budget)
    report.content["machine"] = {"cuda_devices": 0}
    found = tuple(Check(run.__name__, f"it {run.__name__}", run, "any device") for run in runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "CHECKS", found)
        gpu_check.run_checks(report, "cpu", "all", tmp_path, all_the_time=True)
    return report


def test_a_failed_check_is_recorded_and_the_others_run(light, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "CHECK_SECONDS", 4.0)
    report = checked(tmp_path, 100.0, is_wrong, dies, hangs, holds)
    with pytest.raises(SystemExit) as ended:
        gpu_check.end(report)
    assert ended.value.code == 1
    rows = {row["name"]: row for row in json.loads((tmp_path / "gpu.json").read_text())["checks"]}
    assert [row["status"] for row in rows.values()] == ["failed"] * 3 + ["passed"]
    assert "Traceback" in rows["is_wrong"]["error"] and "AssertionError: 0.5 is above 0.1" in rows["is_wrong"]["error"]
    assert rows["is_wrong"]["error"].endswith("a kernel said something")
    assert rows["dies"]["error"] == "the process ended with exit code 3"
    assert rows["hangs"]["error"] == "stopped after 4 s"
    assert rows["holds"]["facts"] == {"found": 3}
    printed = capsys.readouterr().out
    assert "failed: is_wrong, dies, hangs" in printed and "1 checks passed, 3 failed" in printed


def test_what_a_stopped_check_has_started_ends_with_it(light, tmp_path):
    outcome = Processes().call(hangs, None, tmp_path, limit=3)
    assert outcome.error == "stopped after 3 s"
    child = Path("/proc", (tmp_path / "child").read_text())
    for _ in range(100):
        if not child.exists() or (child / "stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("the child goes on")


def test_what_has_no_time_left_is_named(light, tmp_path):
    [row] = checked(tmp_path, 0.0, holds).content["checks"]
    assert (row["status"], row["reason"]) == ("not run", "no time was left")


def test_mistakes_in_the_command_are_one_message(light, tmp_path, capsys):
    report = gpu_check.Report(tmp_path / "gpu.json", 1.0)
    with pytest.raises(SystemExit):
        gpu_check.run_checks(report, "cpu", "graph,grap", tmp_path, all_the_time=True)
    assert "there is no 'grap'; there are cpu, graph" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        gpu_check.checkpoints([f"bert-base={tmp_path}"])
    assert "is no folder with a config.json" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- order and page


def test_the_most_valuable_measurements_come_first():
    planned = speed.planned("cuda")
    assert len(set(planned)) == len(planned)
    first = [(one.case.name, one.contender.label) for one in planned[:6]]
    assert first == [(case, label) for case in ("bert-base-64", "modernbert-base-64") for label in speed.SOME]
    assert planned[-1].number == 3 and sum(one.number == 1 for one in planned) >= 20
    assert {one.case.target_batch_size for one in planned} == {64, 256, 1024}


def test_a_page_has_a_table_of_what_was_measured_and_names_the_rest(tmp_path):
    machine = {"device": "a GPU", "cores": 2, "threads": 2, "bfloat16": [], "python": "3", "versions": {"torch": "2"}}
    one, two = speed.planned("cuda")[:2]
    measured = {
        "samples_per_second": 100.0, "update_seconds": [0.5], "cores_taken_by_others": 0.0, "peak_memory_bytes": 2**20,
        "precision": "bfloat16", "product_rate": 1e14,
        "facts": {"trial": {"micro_step": "cuda_graph", "micro_step_seconds": {"eager": 0.03, "cuda_graph": 0.01}}},
    }  # fmt: skip
    found = {"gradients": {"trainer": {"passed": False, "largest_difference": 0.5}}, "flops_per_sample": 6e10}
    result = speed.new_result(one.case, {"machine": machine, "corpus": "made up", "revision": ""}, found)
    speed.add(result, one, measured)
    report = {
        "machine": machine, "revision": "", "cases": {one.case.name: result},
        "checks": [
            {"name": "a", "claim": "it holds", "status": "passed", "seconds": 1.0},
            {"name": "b", "claim": "it fails", "status": "failed", "seconds": 1.0, "error": "Trace\nBad: a|b\n\nlog"},
            {"name": "c", "claim": "it needs two", "status": "not run", "reason": "one CUDA device, and it needs two"},
        ],
    }  # fmt: skip
    (tmp_path / "gpu.json").write_text(json.dumps(report))
    page = tmp_path / "page.md"
    names = [*(case.name for case in CASES if case.device == "cpu"), "gpu", "not-measured"]
    page.write_text("\n".join(BEGIN.format(name=name) + END.format(name=name) for name in names))
    render(page, tmp_path)
    text = page.read_text()
    assert "| it holds | passed | 1.0 |" in text
    assert "| it fails | **failed**: Bad: a\\|b | 1.0 |" in text
    assert "| it needs two | not run: one CUDA device, and it needs two |" in text
    assert "### BERT-base, target batch 64" in text and "### BERT-base, target batch 256" not in text
    assert "1 of 1, 3.00 × eager" in text
    assert f"| {two.contender.label} | bfloat16 | 16 | not timed: its gradient is 5.0e-01 off |" in text
    assert "On a GPU: BERT-base, target batch 256" in text and "Lightning" not in text
