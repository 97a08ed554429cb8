"""The tables of a study, from the files of its runs: what every figure and the page read."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from batchscope.errors import UserError
from batchscope.files import atomic, read_json
from batchscope.statistics.paired import batch_size_contrasts, binomial_standard_error, wilson_interval

METRICS = ("examples", "correct", "accuracy", "loss", "nll", "brier", "ece")
COST = (
    ("updates", "samples", "seconds", "training_seconds", "validation_seconds", "samples_per_second")
    + ("update_seconds_p50", "update_seconds_p95", "peak_memory_bytes", "device", "precision", "physical_batch_size")
    + ("parameters",)
)
TELEMETRY = ("data_wait_seconds", "gpu_utilisation_mean", "gpu_utilisation_peak", "energy_joules")
SCORES = ("correct", "examples", "accuracy", "loss")
HISTORY = pa.schema(
    [
        *((name, pa.string()) for name in ("run", "model")),
        ("target_batch_size", pa.int64()),
        ("lr_policy", pa.string()),
        ("seed", pa.int64()),
        ("kind", pa.string()),
        *((name, pa.int64()) for name in ("update", "epoch", "samples", "correct", "examples")),
        *((name, pa.float64()) for name in ("accuracy", "loss", "lr", "grad_norm")),
        *((name, pa.float64()) for name in ("gradient_square", "noise_trace")),
        *((f"validation_{name}", pa.int64()) for name in ("correct", "examples")),
        *((f"validation_{name}", pa.float64()) for name in ("accuracy", "loss")),
    ]
)


def write_tables(spec: dict[str, Any], study_folder: Path) -> None:
    """Write everything under ``tables/`` of a study.

    ``spec`` is ``Study.tables_spec()``. Raises UserError if a file of a run or of the data is missing.
    """
    cells = spec["cells"]
    runs = {cell["run"]: study_folder / "runs" / cell["run"] for cell in cells}
    _require(
        [
            folder / name
            for folder in runs.values()
            for name in ("train.json", "metrics.json", "history.jsonl", "predictions.parquet")
        ]
        + [study_folder / "data" / "audit.json"]
    )
    facts = {run: read_json(folder / "train.json") for run, folder in runs.items()}
    metrics = {run: read_json(folder / "metrics.json") for run, folder in runs.items()}
    results = pd.DataFrame([_result(cell, facts[cell["run"]], metrics[cell["run"]]) for cell in cells])
    contrasts = batch_size_contrasts(cells, _test_correct(runs))

    tables = study_folder / "tables"
    _write_parquet(tables / "results.parquet", pa.Table.from_pandas(results, preserve_index=False))
    _write_parquet(tables / "history.parquet", _history(cells, runs))
    _write_csv(tables / "results.csv", results)
    _write_csv(tables / "summary.csv", summarise(results))
    _write_csv(tables / "contrasts.csv", pd.DataFrame(contrasts, columns=list(CONTRAST_COLUMNS)))
    _write_csv(tables / "cost.csv", results.loc[~results.shared, [*_LABELS, *COST, *TELEMETRY]])
    audit = flatten(read_json(study_folder / "data" / "audit.json"))
    _write_csv(tables / "audit.csv", pd.DataFrame(audit, columns=["fact", "value"]))


_LABELS = ("run", "model", "target_batch_size", "lr_policy", "seed")
CONTRAST_COLUMNS = (
    ("model", "lr_policy", "seed", "smaller_batch", "larger_batch", "n", "smaller_accuracy", "larger_accuracy")
    + ("difference_points", "standard_error_points", "paired_standard_error_points", "only_smaller_correct")
    + ("only_larger_correct", "mcnemar_p", "mcnemar_p_holm", "comparisons")
)


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """One row per model, batch size and policy: mean and SD over seeds, and the interval that the test set allows.

    The seeds share their test reviews, so more seeds do not make more reviews: standard error and Wilson interval are
    those of the accuracy over all seeds at the number of reviews of one.
    """
    rows = []
    for (model, batch, policy), group in results.groupby(["model", "target_batch_size", "lr_policy"], sort=False):
        reviews = int(group.test_examples.iloc[0])
        pooled = int(group.test_correct.sum()) / int(group.test_examples.sum())
        low, high = wilson_interval(pooled, reviews)
        rows.append(
            {
                "model": model,
                "target_batch_size": batch,
                "lr_policy": policy,
                "learning_rate": group.learning_rate.iloc[0],
                "shared": bool(group.shared.all()),
                "seeds": len(group),
                "validation_accuracy_mean": int(group.validation_correct.sum()) / int(group.validation_examples.sum()),
                "validation_accuracy_sd": group.validation_accuracy.std(ddof=1),
                "test_accuracy_mean": pooled,
                "test_accuracy_sd": group.test_accuracy.std(ddof=1),
                "test_examples": reviews,
                "test_standard_error": binomial_standard_error(pooled, reviews),
                "test_low": low,
                "test_high": high,
                "best_epochs": " ".join(str(epoch) for epoch in group.best_epoch),
                "updates": int(group.updates.iloc[0]),
                "seconds_mean": group.seconds.mean(),
            }
        )
    return pd.DataFrame(rows)


def flatten(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """(dotted path, leaf) of every leaf of a JSON value, in order."""
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in flatten(inner, f"{path}.{key}" if path else str(key))]
    if isinstance(value, list):
        return [leaf for number, inner in enumerate(value) for leaf in flatten(inner, f"{path}.{number}")]
    return [(path, value)]


def _result(cell: dict[str, Any], facts: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """A row of the results: the best checkpoint's metrics under plain names, the last one's under ``…_last``."""
    row = {
        "model": cell["model"],
        "target_batch_size": cell["batch"],
        "lr_policy": cell["policy"],
        "seed": cell["seed"],
        "learning_rate": float(cell["learning_rate"]),
        "run": cell["run"],
        "shared": cell["shared"],
        "best_epoch": facts["best_epoch"],
        "epochs": facts["epochs"],
    }
    for checkpoint, suffix in (("best", ""), ("last", "_last")):
        for split in ("validation", "test"):
            scores = metrics[split][checkpoint]
            row |= {f"{split}_{name}{suffix}": scores[name] for name in METRICS}
            row[f"{split}_accuracy{suffix}"] = scores["correct"] / scores["examples"]
    row |= {name: facts[name] for name in COST}
    # What was not measured, on a CPU or by an earlier release, is not a number.
    measured = {name: facts.get(name) for name in TELEMETRY}
    return row | {name: math.nan if value is None else float(value) for name, value in measured.items()}


def _test_correct(runs: dict[str, Path]) -> dict[str, np.ndarray]:
    """Run → whether its best checkpoint is right, per test review in the order of ``example_id``."""
    correct: dict[str, np.ndarray] = {}
    reviews = None
    for run, folder in runs.items():
        path = folder / "predictions.parquet"
        table = pq.read_table(path, filters=[("split", "==", "test"), ("checkpoint", "==", "best")])
        order = np.argsort(table["example_id"].to_numpy(), kind="stable")
        ids = table["example_id"].to_numpy()[order]
        reviews = ids if reviews is None else reviews
        if not np.array_equal(ids, reviews):
            raise UserError(
                f"{path} has other test reviews than the runs before it; delete it and evaluate the run again"
            )
        logits = np.column_stack([table[name].to_numpy() for name in table.column_names if name.startswith("logit_")])
        correct[run] = (logits.argmax(1) == table["label"].to_numpy())[order]
    return correct


def _history(cells: list[dict[str, Any]], runs: dict[str, Path]) -> pa.Table:
    """Every update and epoch of every run; an epoch's row has the train scores plain and the validation's prefixed."""
    owners = {cell["run"]: cell for cell in reversed(cells)}
    records = []
    for run, folder in runs.items():
        cell = owners[run]
        labels = dict(zip(_LABELS, (run, cell["model"], cell["batch"], cell["policy"], cell["seed"]), strict=True))
        for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record["kind"] == "epoch":
                validation = {f"validation_{name}": record["validation"][name] for name in SCORES}
                record |= {name: record["train"][name] for name in SCORES} | validation
            records.append(labels | record)
    return pa.Table.from_pylist(records, schema=HISTORY)


def _require(paths: list[Path]) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        shown = "".join(f"\n  {path}" for path in missing[:8])
        more = f"\n  … and {len(missing) - 8} more" if len(missing) > 8 else ""
        raise UserError(f"the study is not complete; train and evaluate the runs that lack these files:{shown}{more}")


def _write_parquet(path: Path, table: pa.Table) -> None:
    _write(path, lambda temporary: pq.write_table(table, temporary))


def _write_csv(path: Path, frame: pd.DataFrame) -> None:
    _write(path, lambda temporary: frame.to_csv(temporary, index=False))


def _write(path: Path, writer: Callable[[Path], Any]) -> None:
    with atomic(path) as temporary:
        writer(temporary)
