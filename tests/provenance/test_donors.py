"""Finished runs that one training overwrites and another wants; the workflow's tests have Snakemake do so."""

from pathlib import Path

import pytest
from jobs import jobs_of
from small import tiny_config

from batchscope.files import write_json, write_text
from batchscope.provenance.donors import KEPT, keep_donors
from batchscope.provenance.manifests import run_fingerprint
from batchscope.training.spec import TrainSpec

OLD, WANTS = "bert/bs16/constant/seed1", "bert/bs64/constant/seed1"


@pytest.mark.parametrize("whole", [True, False])
def test_a_run_is_kept_if_it_is_whole(
    small_study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = jobs_of(Path(), tiny_config(target_batch_sizes=[16, 64]), small_study).read()
    spec, code = jobs.spec(f"train/{WANTS}", TrainSpec), jobs.code(f"train/{WANTS}")
    wanted = run_fingerprint(spec, code, jobs.layout.tokens("bert"))
    files = {"history.jsonl": "a", "train.json": "b"}
    write_json(jobs.layout.run(OLD) / "manifest.json", {"fingerprint": wanted, "files": files, "spec": {}})
    for name in files if whole else ["history.jsonl"]:
        write_text(jobs.layout.run(OLD) / name, "x")
    keep_donors(jobs, [f"train/{OLD}"])
    assert len([path for pattern in KEPT for path in jobs.layout.results.glob(pattern)]) == whole
