"""Calibration of every run of a study, from its predictions: before and after a temperature fitted on validation."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchscope.errors import UserError
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
from batchscope.statistics.paired import wilson_interval

TABLES = ("calibration.csv", "reliability.csv")
Row = dict[str, object]
CellKey = tuple[str, int, str, str]


class Predictions(NamedTuple):
    """Logits ``[N, C]`` and labels ``[N]`` of one split, the best checkpoint's."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]


def measure_calibration(spec: CalibrationSpec, study_folder: Path) -> None:
    """Write ``tables/calibration.csv``, a row per run, and ``tables/reliability.csv``, a row per cell and bin.

    The predictions of one group of seeds are in memory at a time. Raises UserError if those of a run are missing.
    """
    rows: list[Row] = []
    diagrams: list[Row] = []
    for members in _by_seed(spec.cells):
        tested: list[Predictions] = []
        for cell in members:
            validation, test = _predictions(study_folder / "runs" / cell.run / "predictions.parquet")
            rows += [] if cell.shared else [_run_row(cell, validation, test, spec.bins)]
            tested.append(test)
        diagrams += _diagram(members[0], tested, spec.bins)
    for name, content in zip(TABLES, (rows, diagrams), strict=True):
        with atomic(study_folder / "tables" / name) as temporary:
            pd.DataFrame(content).to_csv(temporary, index=False)


def _by_seed(cells: Iterable[GridCell]) -> list[list[GridCell]]:
    """The cells that differ in the seed alone, together."""
    groups: dict[CellKey, list[GridCell]] = {}
    for cell in cells:
        groups.setdefault((cell.model, cell.batch, cell.policy, cell.budget), []).append(cell)
    return list(groups.values())


def _predictions(path: Path) -> tuple[Predictions, Predictions]:
    """The best checkpoint's, on validation and test."""
    if not path.is_file():
        raise UserError(f"{path} is missing; evaluate the run first")
    table = pq.read_table(path)
    best = table.filter(pc.equal(table["checkpoint"], "best"))
    logits = [name for name in table.column_names if name.startswith("logit_")]
    parts = (best.filter(pc.equal(best["split"], split)) for split in ("validation", "test"))
    validation, test = (
        Predictions(np.column_stack([part[name].to_numpy() for name in logits]), part["label"].to_numpy())
        for part in parts
    )
    return validation, test


def _run_row(cell: GridCell, validation: Predictions, test: Predictions, bins: int) -> Row:
    """Calibration of a run on test, and what the temperature of its validation reviews makes of it."""
    temperature = fit_temperature(*validation)
    plain, scaled = (_measures(test, value, bins) for value in (1.0, temperature))
    return (
        {"run": cell.run, **_labels(cell), "seed": cell.seed, "examples": len(test.labels)}
        | plain
        | {"temperature": temperature, "validation_examples": len(validation.labels)}
        | {f"scaled_{name}": value for name, value in scaled.items() if name not in ("correct", "uncertainty")}
    )


def _measures(predicted: Predictions, temperature: float, bins: int) -> Row:
    probabilities = probabilities_at(predicted.logits, temperature)
    correct = predicted.logits.argmax(1) == predicted.labels
    confidence = probabilities.max(1)
    parts = brier_parts(probabilities, predicted.labels, bins)
    return {
        "correct": int(correct.sum()),
        "mean_confidence": float(confidence.sum()) / len(correct),
        "nll": negative_log_likelihood(predicted.logits, predicted.labels, temperature),
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
    correct = np.concatenate([test.logits.argmax(1) == test.labels for test in tested])
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
