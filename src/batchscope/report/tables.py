"""The tables of a study, from the files of its runs: what every figure and the page read."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchscope.certificate.records import Certificate
from batchscope.data.records import Audit, ReviewsFile
from batchscope.errors import UserError
from batchscope.evaluation.records import Metrics
from batchscope.files import DamagedFileError, atomic, read_json, read_json_lines
from batchscope.insight.records import AttentionMeasures
from batchscope.provenance.records import RunManifest
from batchscope.report import branches, latex, rows
from batchscope.report.spec import GridCell, TablesSpec
from batchscope.statistics.components import seed_scatter
from batchscope.statistics.contrasts import findings, metric_findings, pair_findings
from batchscope.statistics.families import all_pairs, planned
from batchscope.statistics.health import constant_prediction, faulty_runs
from batchscope.statistics.horizon import Horizon, Setting, horizons
from batchscope.statistics.noise_scale import noise_span, noise_summary
from batchscope.statistics.omnibus import trends
from batchscope.statistics.paired import Pair, batch_size_pairs, binomial_standard_error, wilson_interval
from batchscope.statistics.records import COLUMNS, Finding, Trend
from batchscope.statistics.sweep import Choice, Trial, choices, chosen_grid, chosen_rates, expected_best, trials
from batchscope.training.records import BranchesFile, HistoryLine, TrainFacts

METRICS = ("examples", "correct", "accuracy", "macro_f1", "loss", "nll", "brier", "ece")
COST = (
    ("updates", "samples", "seconds", "training_seconds", "validation_seconds", "samples_per_second")
    + ("update_seconds_p50", "update_seconds_p95", "peak_memory_bytes", "device", "precision", "physical_batch_size")
    + ("parameters",)
)
PLACE = ("model", "lr_policy", "budget", "target_batch_size")
CURVES = (*rows.LABELS, "kind", "epoch", "update", "samples", "flops", "lr_sum", "seconds") + (
    "validation_correct",
    "validation_examples",
    "validation_accuracy",
    "validation_loss",
    "best",
)
TELEMETRY = ("data_wait_seconds", "gpu_utilisation_mean", "gpu_utilisation_peak", "energy_joules", "jobs_per_gpu")
JUDGED = ("p_holm", "p_equivalence", "verdict", "more_seeds", "more_reviews")
"""Columns of the contrasts that a description without a family lacks."""
RUN_RECORDS = ("train.json", "metrics.json", "manifest.json", "attention/measures.json")
RUN_FILES = (*RUN_RECORDS, "history.jsonl", "predictions.parquet")
HISTORY = pa.schema(
    [
        *((name, pa.string()) for name in ("run", "model")),
        ("target_batch_size", pa.int64()),
        ("lr_policy", pa.string()),
        ("budget", pa.string()),
        ("seed", pa.int64()),
        ("kind", pa.string()),
        *((name, pa.int64()) for name in ("update", "epoch", "samples", "correct", "examples")),
        *((name, pa.float64()) for name in ("accuracy", "loss", "lr", "grad_norm")),
        *((name, pa.float64()) for name in ("gradient_square", "noise_trace")),
        *((f"validation_{name}", pa.int64()) for name in ("correct", "examples")),
        *((f"validation_{name}", pa.float64()) for name in ("accuracy", "loss")),
    ]
)


class Run(NamedTuple):
    """The files of a run that tables are made of, read once, with the first cell of the grid that reads it."""

    cell: GridCell
    folder: Path
    facts: TrainFacts
    metrics: Metrics
    manifest: RunManifest
    measures: AttentionMeasures

    @classmethod
    def read(cls, cell: GridCell, folder: Path) -> "Run":
        """The run of a cell."""
        return cls(cell, folder, *(read_json(folder / name) for name in RUN_RECORDS))


def write_tables(spec: TablesSpec, study_folder: Path) -> None:
    """Write everything under ``tables/`` of a study: the tables of the catalogue.

    Raises UserError if a file of a run, of the data or of a certificate is missing.
    """
    owners = {cell.run: cell for cell in reversed(spec.cells)}
    folders = {run: study_folder / "runs" / run for run in dict.fromkeys(cell.run for cell in spec.cells)}
    shared = [study_folder / "data" / name for name in ("audit.json", "reviews.json")]
    shared += [study_folder / "certificates" / f"{model}.json" for model in spec.model_names]
    branched = [folders[run] / "branches.json" for run in (spec.branches.runs if spec.branches else ())]
    _require([folder / name for folder in folders.values() for name in RUN_FILES] + branched + shared)
    audit: Audit = read_json(shared[0])
    reviews: ReviewsFile = read_json(shared[1])
    certificates: dict[str, Certificate] = {path.stem: read_json(path) for path in shared[2:]}
    tables = study_folder / "tables"

    trained = {name: Run.read(owners[name], folder) for name, folder in folders.items()}
    tried = trials(spec.cells, {name: validation_counts(run.metrics) for name, run in trained.items()})
    made = choices(tried)
    _write_sweeps(tables, tried, made, trained)
    # From here on a sweep is the one learning rate that validation chose: no other one's test is read.
    grid = chosen_grid(spec, chosen_rates(made))
    owners |= {cell.run: cell for cell in reversed(grid.cells)}
    shown = {cell.run for cell in grid.cells}
    runs = {name: run._replace(cell=owners[name]) for name, run in trained.items() if name in shown}
    history = history_of(run._replace(cell=owners[run.cell.run]) for run in trained.values())
    lines = history.to_pandas()
    results = pd.DataFrame([result_row(cell, runs[cell.run], audit["classes"]) for cell in grid.cells])
    summary = summarise(results)

    write_parquet(tables / "history.parquet", history)
    _write_both(tables / "results", results)
    _write_both(tables / "summary", summary)
    _write_latex(tables / "summary.tex", latex.summary(summary))
    _write_conclusions(grid, {name: run.folder for name, run in runs.items()}, results, audit["classes"], tables)
    write_csv(tables / "cost.csv", results.loc[~results.shared, [*rows.LABELS, *COST, *TELEMETRY]])
    write_csv(tables / "noise_scale.csv", noise_summary(grid.cells, lines))
    write_csv(tables / "branches.csv", _branches(spec, runs, lines))
    write_csv(tables / "curves.csv", curves(lines, runs))
    write_csv(tables / "horizon.csv", pd.DataFrame(_audited(grid.cells, runs, lines)))
    write_csv(tables / "audit.csv", pd.DataFrame(flatten(audit), columns=["fact", "value"]))
    write_csv(tables / "baseline.csv", rows.frame(rows.baseline_rows(reviews["baseline"])))
    made_of = (
        rows.provenance_row(owners[name], run.manifest, run.metrics["computed_with"]) for name, run in trained.items()
    )
    write_csv(tables / "provenance.csv", rows.frame(made_of))
    _write_restated(tables, list(runs.values()), audit["classes"], certificates)


def _branches(spec: TablesSpec, runs: Mapping[str, Run], history: pd.DataFrame) -> pd.DataFrame:
    """The branches of all branched runs; no row in a study without branches."""
    found: list[rows.Row] = []
    updates = history[history.kind == "update"]
    for name in spec.branches.runs if spec.branches else ():
        own, run = updates[updates.run == name], runs[name]
        file: BranchesFile = read_json(run.folder / "branches.json")
        assert spec.branches is not None
        found += branches.branch_rows(run.cell, file, spec.branches, own, noise_span(updates, max(spec.batch_sizes)))
    return rows.frame(found, branches.COLUMNS)


def curves(history: pd.DataFrame, runs: Mapping[str, Run]) -> pd.DataFrame:
    """Every validation of the shown runs at its update, samples, FLOPs, ΣLR and seconds of training.

    FLOPs are ``samples`` times ``training_flops_per_sample`` of the run's ``train.json``, where that is known. Seconds
    are those of the updates.
    """
    lines = dict(list(history.groupby("run")))
    parts = []
    for name, run in runs.items():
        mine = lines[name]
        sums = mine[mine.kind == "update"].set_index("update").lr.cumsum()
        seconds = {entry["update"]: entry["seconds"] for entry in run.facts["validation_times"]}
        reached = mine[mine.kind != "update"].sort_values("update", kind="stable")
        parts.append(
            reached.assign(
                flops=reached.samples * (run.facts["training_flops_per_sample"] or math.nan),
                lr_sum=reached["update"].map(sums),
                seconds=reached["update"].map(seconds),
                best=reached["update"] == run.facts["best_update"],
                **{name: reached[name].astype(int) for name in ("validation_correct", "validation_examples")},
            )
        )
    return pd.concat(parts)[list(CURVES)]


def _write_sweeps(tables: Path, tried: Sequence[Trial], made: Sequence[Choice], runs: Mapping[str, Run]) -> None:
    """What every sweep tried, by validation alone; what was chosen; what the best of n trials is expected to reach."""
    chosen = chosen_rates(made)
    rates = [
        trial._asdict()
        | {"validation_accuracy": trial.accuracy, "chosen": chosen[trial.place] == trial.learning_rate}
        | {"seconds": sum(runs[name].facts["seconds"] for name in trial.runs)}
        | {"diverged": sum(runs[name].facts["diverged"] for name in trial.runs), "runs": " ".join(trial.runs)}
        for trial in tried
    ]
    columns = (*Trial._fields, "validation_accuracy", "chosen", "seconds", "diverged")
    write_csv(tables / "sweep.csv", rows.frame(rates, columns))
    write_csv(tables / "tuning.csv", rows.frame((one._asdict() for one in made), Choice._fields))
    groups = {one: [trial.accuracy for trial in tried if trial.place == one[:4]] for one in made}
    best = (
        dict(zip(PLACE, one[:4], strict=True)) | {"trials": number, "expected_validation_accuracy": value}
        for one, accuracies in groups.items()
        for number, value in enumerate(expected_best(accuracies), start=1)
    )
    write_csv(tables / "best_of_n.csv", rows.frame(best, (*PLACE, "trials", "expected_validation_accuracy")))


def _audited(cells: Iterable[GridCell], runs: Mapping[str, Run], history: pd.DataFrame) -> list[Horizon]:
    """Adam's horizon of every cell, from what its run did."""
    sums = history[history.kind == "update"].groupby("run").lr.agg(math.fsum)
    settings = []
    for cell in cells:
        facts, place = runs[cell.run].facts, (cell.model, cell.policy, cell.budget, cell.batch)
        per_epoch = facts["windows_per_epoch"]["full"] + facts["windows_per_epoch"]["tail"]
        did = facts["updates"], per_epoch, sums[cell.run]
        settings.append(Setting(*place, cell.learning_rate, cell.betas, cell.eps, *did))
    return horizons(settings)


def validation_counts(metrics: Metrics) -> tuple[int, int]:
    """Correct and all validation reviews of a run's best checkpoint."""
    best = metrics["validation"]["best"]
    return best["correct"], best["examples"]


def _write_conclusions(
    spec: TablesSpec, folders: Mapping[str, Path], results: pd.DataFrame, classes: Sequence[str], tables: Path
) -> None:
    """The tables of what the study establishes."""
    tested = TestPredictions.read(folders)
    correct, faulty = tested.correct, faulty_runs(results)
    contrasts = planned(spec.cells, spec.claims)
    found = findings(contrasts, correct, faulty, spec.claims)
    everything = pd.DataFrame(found, columns=list(Finding._fields))
    write_csv(tables / "contrasts.csv", everything[list(COLUMNS)])
    write_parquet(tables / "contrasts.parquet", pa.Table.from_pandas(everything, preserve_index=False))
    _write_latex(tables / "contrasts.tex", latex.contrasts(everything))
    omnibus = pd.DataFrame(trends(spec.cells, correct, faulty), columns=list(Trend._fields))
    _write_both(tables / "omnibus", omnibus)
    _write_latex(tables / "omnibus.tex", latex.omnibus(omnibus))
    described = [name for name in COLUMNS if name not in JUDGED]
    pairs = pd.DataFrame(pair_findings(all_pairs(spec.cells), correct), columns=list(Finding._fields))
    _write_both(tables / "pairs", pairs[described])
    by_seed = batch_size_pairs(spec.cells, correct)
    _write_both(tables / "pairs_by_seed", pd.DataFrame(by_seed, columns=list(Pair._fields)))
    others = metric_findings(contrasts, tested.predicted, tested.labels, classes)
    by_metric = pd.DataFrame([one.finding for one in others], columns=list(Finding._fields))[described]
    by_metric.insert(0, "metric", [one.metric for one in others])
    _write_both(tables / "contrasts_by_metric", by_metric)


def _write_restated(
    tables: Path, runs: Sequence[Run], classes: Sequence[str], certificates: Mapping[str, Certificate]
) -> None:
    """The tables with several rows per run or model."""
    per_class = [rows.class_rows(run.cell, run.metrics, classes) for run in runs]
    write_csv(tables / "classes.csv", rows.frame((row for some, _ in per_class for row in some), rows.CLASS_COLUMNS))
    confusion = (row for _, some in per_class for row in some)
    write_csv(tables / "confusion.csv", rows.frame(confusion, rows.CONFUSION_COLUMNS))
    attention = (row for run in runs for row in rows.attention_rows(run.cell, run.measures))
    write_csv(tables / "attention.csv", rows.frame(attention, rows.ATTENTION_COLUMNS))
    certified = (row for model, found in certificates.items() for row in rows.certificate_rows(model, found))
    write_csv(tables / "certificates.csv", rows.frame(certified, rows.CERTIFICATE_COLUMNS))


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """One row per model, batch size, policy and budget: mean and SD over seeds, and the interval of the test set.

    The seeds share their test reviews, so more seeds do not make more reviews: standard error and Wilson interval are
    those of the accuracy over all seeds at the number of reviews of one.
    """
    rows = []
    keys = ["model", "target_batch_size", "lr_policy", "budget"]
    for (model, batch, policy, budget), group in results.groupby(keys, sort=False):
        reviews = int(group.test_examples.iloc[0])
        pooled = int(group.test_correct.sum()) / int(group.test_examples.sum())
        low, high = wilson_interval(pooled, reviews)
        scatter = seed_scatter(group.test_accuracy.to_numpy(), reviews)
        rows.append(
            {
                "model": model,
                "target_batch_size": batch,
                "lr_policy": policy,
                "budget": budget,
                "learning_rate": group.learning_rate.iloc[0],
                "shared": bool(group.shared.all()),
                "seeds": len(group),
                "diverged": int(group.diverged.sum()),
                "collapsed": int(group.constant_prediction.notna().sum()),
                "validation_accuracy_mean": int(group.validation_correct.sum()) / int(group.validation_examples.sum()),
                "validation_accuracy_sd": group.validation_accuracy.std(ddof=1),
                "test_accuracy_mean": pooled,
                "test_accuracy_sd": scatter.sd,
                "test_accuracy_sd_expected": scatter.expected,
                "test_accuracy_sd_p": scatter.p,
                "test_macro_f1_mean": group.test_macro_f1.mean(),
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


def result_row(cell: GridCell, run: Run, classes: Sequence[str]) -> rows.Row:
    """A row of the results: the best checkpoint's metrics under plain names, the last one's under ``…_last``."""
    row = {
        "model": cell.model,
        "target_batch_size": cell.batch,
        "lr_policy": cell.policy,
        "budget": cell.budget,
        "seed": cell.seed,
        "learning_rate": cell.learning_rate,
        "beta1": cell.betas[0],
        "beta2": cell.betas[1],
        "eps": cell.eps,
        "run": cell.run,
        "shared": cell.shared,
        "best_epoch": run.facts["best_epoch"],
        "best_update": run.facts["best_update"],
        "epochs": run.facts["epochs"],
        "diverged": bool(run.facts["diverged"]),
    }
    for split, both in (("validation", run.metrics["validation"]), ("test", run.metrics["test"])):
        for scores, suffix in ((both["best"], ""), (both["last"], "_last")):
            row |= {f"{split}_{name}{suffix}": value for name, value in scores.items() if name in METRICS}
    for checkpoint, suffix in ((run.metrics["test"]["best"], ""), (run.metrics["test"]["last"], "_last")):
        constant = constant_prediction(checkpoint["confusion"])
        row[f"constant_prediction{suffix}"] = None if constant is None else classes[constant]
    # What was not measured, such as the energy of a CPU, is not a number.
    return row | {
        name: math.nan if value is None else value for name, value in run.facts.items() if name in (*COST, *TELEMETRY)
    }


class TestPredictions(NamedTuple):
    """What the best checkpoint of every run says of the test reviews, in the order of ``example_id``."""

    labels: NDArray[np.int64]
    """``[N]``"""
    predicted: dict[str, NDArray[np.int16]]
    """Run → class ``[N]``."""

    @property
    def correct(self) -> dict[str, NDArray[np.bool_]]:
        """Run → whether the prediction is right ``[N]``."""
        return {run: classes == self.labels for run, classes in self.predicted.items()}

    @classmethod
    def read(cls, runs: Mapping[str, Path]) -> "TestPredictions":
        """The predictions of the runs. Raises UserError where one has other test reviews than the first."""
        predicted: dict[str, NDArray[np.int16]] = {}
        reviews, labels = None, np.empty(0, dtype=np.int64)
        for run, folder in runs.items():
            path = folder / "predictions.parquet"
            try:
                table = pq.read_table(path, filters=[("split", "==", "test"), ("checkpoint", "==", "best")])
            except pa.ArrowException as error:
                raise DamagedFileError(path, error) from None
            order = np.argsort(table["example_id"].to_numpy(), kind="stable")
            ids = table["example_id"].to_numpy()[order]
            if reviews is None:
                reviews, labels = ids, table["label"].to_numpy()[order]
            if not np.array_equal(ids, reviews):
                raise UserError(
                    f"{path} has other test reviews than the runs before it; delete it and evaluate the run again"
                )
            names = [name for name in table.column_names if name.startswith("logit_")]
            logits = np.column_stack([table[name].to_numpy() for name in names])
            predicted[run] = logits.argmax(1).astype(np.int16)[order]
        return cls(labels, predicted)


def history_of(runs: Iterable[Run]) -> pa.Table:
    """Every line of every run's history; the train scores are plain and the validation's prefixed."""
    records: list[rows.Row] = []
    for run in runs:
        for line in _lines(run.folder / "history.jsonl"):
            record = rows.labels_of(run.cell) | dict(line)
            if line["kind"] != "update":
                record |= {f"validation_{name}": value for name, value in line["validation"].items()}
            if line["kind"] == "epoch":
                record |= dict(line["train"])
            records.append(record)
    return pa.Table.from_pylist(records, schema=HISTORY)


def _lines(path: Path) -> list[HistoryLine]:
    """The lines of a history. Raises DamagedFileError."""
    lines: list[HistoryLine] = read_json_lines(path)
    if not lines:
        raise DamagedFileError(path, ValueError("it is empty"))
    return lines


def _require(paths: list[Path]) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        shown = "".join(f"\n  {path}" for path in missing[:8])
        more = f"\n  … and {len(missing) - 8} more" if len(missing) > 8 else ""
        raise UserError(f"the study is not complete; train and evaluate the runs that lack these files:{shown}{more}")


def write_parquet(path: Path, table: pa.Table) -> None:
    _write(path, lambda temporary: pq.write_table(table, temporary))


def _write_both(path: Path, frame: pd.DataFrame) -> None:
    """The table as ``{path}.csv`` and ``{path}.parquet``."""
    write_csv(path.with_name(path.name + ".csv"), frame)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    write_parquet(path.with_name(path.name + ".parquet"), table)


def _write_latex(path: Path, text: str) -> None:
    _write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    _write(path, lambda temporary: frame.to_csv(temporary, index=False))


def _write(path: Path, writer: Callable[[Path], Any]) -> None:
    with atomic(path) as temporary:
        writer(temporary)
