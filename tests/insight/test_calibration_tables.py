"""The stage that measures calibration: its tables agree with the metrics of the runs."""

from pathlib import Path

import fabricate
import pandas as pd
import pytest

from batchscope.errors import UserError
from batchscope.files import read_json
from batchscope.insight.calibration import measure_calibration
from batchscope.insight.spec import CalibrationSpec


def test_every_run_has_a_row_that_agrees_with_its_metrics(tmp_path: Path) -> None:
    report = fabricate.spec(models={"bert": {"architecture": "bert"}})
    classes = {"classes": ("bad", "fair", "good"), "shares": (0.5, 0.3, 0.2)}
    folder = fabricate.study_folder(tmp_path, report, examples=256, **classes)
    measure_calibration(CalibrationSpec(cells=report.cells, bins=10), folder)
    runs = pd.read_csv(folder / "tables/calibration.csv")
    assert list(runs.run) == list(dict.fromkeys(cell.run for cell in report.cells))
    for run in runs.itertuples():
        test = read_json(folder / "runs" / run.run / "metrics.json")["test"]["best"]
        assert run.examples == test["examples"] and run.correct == test["correct"]
        assert (run.nll, run.brier) == pytest.approx((test["nll"], test["brier"]))
    diagrams = pd.read_csv(folder / "tables/reliability.csv")
    by_cell = diagrams.groupby(["model", "target_batch_size", "lr_policy"]).predictions.sum()
    assert len(by_cell) == 6 and set(by_cell) == {2 * 300}
    assert (diagrams.low <= diagrams.accuracy).all() and (diagrams.accuracy <= diagrams.high + 1e-9).all()


def test_missing_predictions_are_named(tmp_path: Path) -> None:
    cell = fabricate.spec().cells[0]
    with pytest.raises(UserError, match=r"predictions\.parquet is missing"):
        measure_calibration(CalibrationSpec(cells=(cell,), bins=10), tmp_path)
