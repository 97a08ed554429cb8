"""Calibration of every run of a study, from its predictions: before and after a temperature fitted on validation."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from batchscope.evaluation.stored import Predictions, read_predictions
from batchscope.files import atomic
from batchscope.insight.spec import CalibrationSpec
from batchscope.report.spec import GridCell
from batchscope.statistics.calibration import (
    brier_parts,
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
    probabilities_at,
    reliability_diagram,
)
from batchscope.statistics.grid import cells_by
from batchscope.statistics.paired import wilson_interval

TABLES = ("calibration.csv", "reliability.csv")
Row = dict[str, object]


def measure_calibration(spec: CalibrationSpec, study_folder: Path) -> None:
    """Write ``tables/calibration.csv``, a row per run, and ``tables/reliability.csv``, a row per cell and bin.

    The predictions of one group of seeds are in memory at a time. Raises UserError if those of a run are missing.
    """
    rows: list[Row] = []
    diagrams: list[Row] = []
    for members in cells_by(spec.cells, "model", "batch", "policy", "budget"):
        tested: list[Predictions] = []
        for cell in members:
            folder = study_folder / "runs" / cell.run
            test = read_predictions(folder, "test")
            rows += [] if cell.shared else [_run_row(cell, read_predictions(folder, "validation"), test, spec.bins)]
            tested.append(test)
        diagrams += _diagram(members[0], tested, spec.bins)
    for name, content in zip(TABLES, (rows, diagrams), strict=True):
        with atomic(study_folder / "tables" / name) as temporary:
            pd.DataFrame(content).to_csv(temporary, index=False)


def _run_row(cell: GridCell, validation: Predictions, test: Predictions, bins: int) -> Row:
    """Calibration of a run on test, and what the temperature of its validation reviews makes of it."""
    temperature = fit_temperature(validation.logits, validation.label)
    plain, scaled = (_measures(test, value, bins) for value in (1.0, temperature))
    return (
        {"run": cell.run, **_labels(cell), "seed": cell.seed, "examples": len(test.label)}
        | plain
        | {"temperature": temperature, "validation_examples": len(validation.label)}
        | {f"scaled_{name}": value for name, value in scaled.items() if name not in ("correct", "uncertainty")}
    )


def _measures(predicted: Predictions, temperature: float, bins: int) -> Row:
    probabilities = probabilities_at(predicted.logits, temperature)
    correct = predicted.logits.argmax(1) == predicted.label
    confidence = probabilities.max(1)
    parts = brier_parts(probabilities, predicted.label, bins)
    return {
        "correct": int(correct.sum()),
        "mean_confidence": float(confidence.sum()) / len(correct),
        "nll": negative_log_likelihood(predicted.logits, predicted.label, temperature),
        "brier": parts.reliability - parts.resolution + parts.uncertainty + parts.within_bins,
        **parts._asdict(),
        **calibration_error(confidence, correct, bins)._asdict(),
    }


def _diagram(cell: GridCell, tested: list[Predictions], bins: int) -> Iterator[Row]:
    """Reliability diagram of a cell, its seeds together; ``run`` is that of the first seed.

    The seeds share their test reviews, so more seeds do not make more of them: the interval of a bin is that of its
    share of right predictions at the number of predictions of one seed.
    """
    confidence = np.concatenate([probabilities_at(test.logits).max(1) for test in tested])
    correct = np.concatenate([test.logits.argmax(1) == test.label for test in tested])
    for number, found in enumerate(reliability_diagram(confidence, correct, bins), 1):
        accuracy = found.correct / found.predictions
        low, high = wilson_interval(accuracy, max(1, round(found.predictions / len(tested))))
        yield (
            {"run": cell.run, **_labels(cell), "seeds": len(tested), "bin": number}
            | found._asdict()
            | {"accuracy": accuracy, "low": low, "high": high}
        )


def _labels(cell: GridCell) -> Row:
    return {"model": cell.model, "target_batch_size": cell.batch, "lr_policy": cell.policy, "budget": cell.budget}
