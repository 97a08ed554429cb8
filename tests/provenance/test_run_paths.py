"""A run's folder tells its study and its model, whether or not it names a budget."""

from pathlib import Path

import pytest

from batchscope.errors import UserError
from batchscope.provenance.layout import Layout
from batchscope.provenance.reuse import RUNS, manifests
from batchscope.provenance.verify import runs_of

PATHS = ("bert/bs64/constant/seed1", "bert/bs64/tuned@1e-05/equal_epochs/seed1", "runs/bs64/constant/long/seed1")


@pytest.mark.parametrize("path", PATHS)
def test_study_and_model_of_a_run(tmp_path: Path, path: str) -> None:
    run = tmp_path / "results/demo/runs" / path
    assert Layout.of_run(run).study == tmp_path / "results/demo"
    assert Layout.model_of_run(run) == path.split("/", maxsplit=1)[0]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run: its folder looks like results/demo/runs/bert"):
        Layout.of_run(tmp_path / "results/demo/tables")


def test_runs_with_and_without_a_budget_are_found(tmp_path: Path) -> None:
    for path in PATHS:
        run = tmp_path / "demo/runs" / path
        (run / "attention").mkdir(parents=True)
        (run / "metrics.json").write_text("{}")
        (run / "manifest.json").write_text('{"fingerprint": "f", "files": {}}')
        (run / "attention/measures.json").write_text("{}")
    assert runs_of(tmp_path / "demo") == sorted(tmp_path / "demo/runs" / path for path in PATHS)
    assert [folder for folder, _ in manifests(tmp_path, RUNS)] == sorted(
        tmp_path / "demo/runs" / path for path in PATHS
    )
