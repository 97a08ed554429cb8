"""Branches in tables, figure and page."""

from pathlib import Path

import fabricate
import pandas as pd
import pytest

from batchscope.report.branches import branches_in_words, branches_table
from batchscope.report.catalogue import figure_names
from batchscope.report.findings import read_csv
from batchscope.report.noise import noise_scale_figure
from batchscope.report.tables import write_tables

BRANCH = {"at": [256], "samples": 512, "lr_policy": "constant"}
MODELS = {"models": {"bert": {"architecture": "bert"}}, "seeds": [1]}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = fabricate.spec(branch=BRANCH, noise_scale="full", **MODELS)
    folder = fabricate.study_folder(tmp_path_factory.mktemp("branches"), spec)
    write_tables(spec, folder)
    return folder


def test_the_table_has_a_row_per_branch_with_the_noise_scale_beside_it(study: Path) -> None:
    rows = read_csv(study / "tables", "branches")
    assert rows.factor.tolist() == [1, 2, 4, 8] and rows.branch_batch_size.tolist() == [16, 32, 64, 128]
    assert rows.critical.tolist() == [False, False, True, False] and rows.reached.all()
    assert rows.target_batch_size.tolist() == [16] * 4, "that of the run"
    assert rows.difference.tolist() == pytest.approx([0, 0, 0.005, 0.05])


def test_words_and_table_state_the_measured_size_and_what_was_not_reached(study: Path) -> None:
    spec, rows = fabricate.spec(branch=BRANCH, noise_scale="full", **MODELS), read_csv(study / "tables", "branches")
    branches = spec.branches
    assert branches is not None
    (said,) = branches_in_words(rows, branches)
    assert "longer branches" not in said
    (noisy,) = branches_in_words(rows.assign(standard_error=[0, 0.002, 0.004, 0.03]), branches)
    assert "standard errors up to 0.030 nats, above the tolerance of 0.01" in noisy
    assert "after 256 samples: the measured critical batch size is 64 (4 × the run's)" in said
    (said,) = branches_in_words(rows.assign(reached=False), branches)
    assert "no critical batch size was reached; it is at least 64" in said
    (said,) = branches_in_words(rows.assign(within=[True, False, True, False]), branches)
    assert "the branch of 2 × was worse" in said
    shown = branches_table(rows.assign(diverged=[False, False, False, True]), branches)
    assert [row[-1] for row in shown.rows] == ["the run", "yes", "yes", "no"]
    assert shown.rows[3][-3] == "diverged"


def test_the_figure_marks_the_critical_batch_size(study: Path) -> None:
    spec, rows = fabricate.spec(branch=BRANCH, noise_scale="full", **MODELS), read_csv(study / "tables", "branches")
    history = pd.read_parquet(study / "tables/history.parquet")
    for reached in (True, False):
        figure = noise_scale_figure(spec, history, "bert", "bert", rows.assign(reached=reached))
        panels = {axis.get_title(loc="left"): axis for axis in figure.axes}
        marks = [line for line in panels["constant LR policy"].lines if line.get_marker() == "D"]
        assert [(m.get_xdata()[0], m.get_ydata()[0]) for m in marks] == [(256, 64)]
        assert len(panels["constant LR policy"].texts) == (not reached)


def test_branches_without_a_noise_scale_have_a_figure_and_a_study_without_both_has_none(tmp_path: Path) -> None:
    spec = fabricate.spec(branch=BRANCH, **MODELS)
    assert "noise_scale_bert.png" in {entry.name for entry in figure_names(spec)}
    folder = fabricate.study_folder(tmp_path, spec)
    write_tables(spec, folder)
    rows = read_csv(folder / "tables", "branches")
    assert rows.noise_scale.isna().all()
    noise_scale_figure(spec, pd.read_parquet(folder / "tables/history.parquet"), "bert", "bert", rows)
    assert not [e for e in figure_names(fabricate.spec(**MODELS)) if e.caption == "noise_scale"]
