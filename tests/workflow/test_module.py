"""Batchscope as a module of another workflow: its rules under any name, with the caller's own config."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from forked import Forked, together
from small_workflow import SMALL

from batchscope.data.tables import read_split


def jobs(output: str) -> dict[str, int]:
    """Rule → number of jobs, from Snakemake's table of a dry run."""
    table = output.split("Job stats:", 1)[1].split("total", 1)[0]
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)}


CALLER = """
configfile: "config.json"

module batchscope:
    snakefile: {snakefile!r}
    config: config["batchscope"]
    {more}

use rule * from batchscope {names}

rule conclusion:
    default_target: True
    input: rules.{page}.output.summary
    output: "conclusion.txt"
    shell: "cp {{input:q}} {{output:q}}"
"""


@pytest.fixture
def caller(root, tmp_path):
    """Run another workflow, which uses Batchscope's rules under these names: its output."""
    synthetic = {"source": "synthetic", "synthetic": {"reviews": 200}, "max_length": 24}
    (tmp_path / "config.json").write_text(json.dumps({"mine": 1, "batchscope": SMALL | {"data": synthetic}}))

    def run(*arguments: str, names: str = "", page: str = "page", more: str = "") -> subprocess.CompletedProcess[str]:
        text = CALLER.format(snakefile=str(root / "Snakefile"), names=names, page=page, more=more)
        (tmp_path / "Snakefile").write_text(text)
        words = ["--cores", "1", "--directory", str(tmp_path), "--snakefile", str(tmp_path / "Snakefile")]
        return together(Forked("snakemake", [*words, *arguments], tmp_path, os.environ).complete())

    return run


def test_another_workflow_runs_the_rules_under_names_of_its_own(caller, tmp_path: Path):
    """What belongs to the login node stays there under another name: this cluster refuses every job."""
    refusing = ("--executor", "cluster-generic", "--cluster-generic-submit-cmd", "false", "--jobs", "1")
    names = {"names": "as batchscope_*", "page": "batchscope_page"}
    result = caller("results/small/data/split.parquet", *refusing, **names)
    assert result.returncode == 0, result.stdout
    assert sum(map(len, read_split(tmp_path / "results/small/data/split.parquet").values())) == 200
    plan = caller("--dry-run", "--quiet", "reason", **names)
    assert plan.returncode == 0, plan.stdout
    assert {"batchscope_train": 3, "batchscope_page": 1, "conclusion": 1}.items() <= jobs(plan.stdout).items()
    assert "batchscope_corpus" not in jobs(plan.stdout)


def test_a_prefix_of_paths_is_refused(caller):
    result = caller("--dry-run", more='prefix: "elsewhere"')
    assert result.returncode == 1
    assert "Remove `prefix:` and `replace_prefix:`" in result.stdout


def test_a_key_that_is_twice_in_the_callers_config_is_told(caller, tmp_path):
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"mine": 1', '"mine": 1, "mine": 2'))
    result = caller("--dry-run")
    assert result.returncode == 1
    assert "the key `mine` is there twice" in result.stdout
