"""What the charts of the page show, as rows of numbers: each row names a run, or says itself what it is about."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from batchscope.report.numbers import percent, scientific
from batchscope.report.spec import ReportSpec
from batchscope.report.trust import run_in_words
from batchscope.statistics.health import faulty_runs
from batchscope.statistics.noise_scale import noise_span, running_noise_scale
from batchscope.statistics.paired import wilson_interval

POINTS = 120
"""Points of one training curve: the updates between two of them are added up."""
MOST_CURVES = 150
"""Runs of which each has its own curve; of more, the seeds of a cell are added up."""
CLOCKS = {
    "update": "updates",
    "samples": "samples seen",
    "epoch": "epochs (samples seen / training reviews)",
    "flops": "FLOPs",
    "lr_sum": "sum of learning rates",
    "seconds": "seconds of training",
}
Value = float | int | str | bool | list[str] | Mapping[str, Sequence[str]] | None


class Rows(NamedTuple):
    """A table of plain values, a list a row."""

    columns: list[str]
    values: list[list[Value]]

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "Rows":
        """The columns of a frame; floats with five significant digits, which no screen can tell from more."""
        columns = [_plain(frame[name]) for name in frame.columns]
        return cls(list(frame.columns), [list(row) for row in zip(*columns, strict=True)])


def run_rows(spec: ReportSpec, results: pd.DataFrame) -> Rows:
    """One row per cell of the grid: its place, its panels, and why its mark is grey, if it is.

    ``results`` is ``tables/results.parquet``. ``first`` is the first row of the same run. ``slot`` is the place of a
    mark beside its batch size, from 0 to 1: the policies side by side, the seeds of each beside each other.
    """
    faulty = faulty_runs(results)
    policies, seeds = spec.policy_names, spec.seeds
    rows = pd.DataFrame(
        {
            "name": results.run,
            "first": results.run.map(_first_cells(results)),
            "model": results.model,
            "policy": results.lr_policy,
            "batch": results.target_batch_size,
            "budget": results.budget,
            "seed": results.seed,
            "shared": results.shared,
            "flag": [faulty.get(run, "") for run in results.run],
            "label": [run_in_words(run) for run in results.run],
        }
    )
    rank = rows.policy.map({policy: place for place, policy in enumerate(policies)})
    beside = rows.seed.map({seed: (place + 0.5) / len(seeds) - 0.5 for place, seed in enumerate(seeds)})
    rows["slot"] = (rank + 0.5 + 0.6 * beside) / len(policies)
    rows["middle"] = (rank + 0.5) / len(policies)
    return Rows.of(_with_panels(spec, rows))


def _with_panels(spec: ReportSpec, rows: pd.DataFrame) -> pd.DataFrame:
    """Titles and order of the panels that a row is in: one per model, and one per model and policy."""
    budget = ", " + rows.budget.astype(str) if spec.several_budgets else ""
    models = rows.model.map({name: place for place, name in enumerate(spec.model_names)}).astype(int)
    policies = rows.policy.map({name: place for place, name in enumerate(spec.policy_names)}).astype(int)
    budgets = rows.budget.map({name: place for place, name in enumerate(spec.budget_names)}).astype(int)
    order = models * len(spec.budget_names) + budgets
    return rows.assign(
        panel=rows.model + budget,
        panel_order=order,
        cell_panel=rows.model + " · " + rows.policy + budget,
        cell_panel_order=order * len(spec.policy_names) + policies,
    )


def accuracy_rows(results: pd.DataFrame) -> Rows:
    """One row per cell: correct test reviews, and the 95% Wilson interval of their share."""
    return Rows.of(_measured(results).reset_index(drop=True))


def _measured(results: pd.DataFrame) -> pd.DataFrame:
    low, high = np.array([wilson_interval(run.test_accuracy, run.test_examples) for run in results.itertuples()]).T
    return pd.DataFrame(
        {"run": range(len(results)), "n": results.test_examples.to_numpy(), "correct": results.test_correct.to_numpy()}
        | {"low": low, "high": high}
    )


def cost_rows(results: pd.DataFrame, reached: pd.DataFrame) -> tuple[Rows, dict[str, str]]:
    """One row per run, with what it cost, and the costs that every run has."""
    rows = _measured(results).assign(
        seconds=results.seconds.to_numpy(),
        update=results.updates.to_numpy(),
        flops=results.samples.to_numpy() * results.run.map(_flops_per_sample(reached)).to_numpy(),
        watt_hours=results.energy_joules.to_numpy() / 3600,
    )[~results.shared.to_numpy()]
    titles = {"seconds": "seconds per run", "watt_hours": "energy of the card, Wh"}
    titles |= {"flops": "FLOPs per run", "update": "updates per run"}
    known = {name: title for name, title in titles.items() if rows[name].notna().all()}
    return Rows.of(rows.drop(columns=[name for name in titles if name not in known])), known


def validation_rows(results: pd.DataFrame, reached: pd.DataFrame, training_reviews: int) -> Rows:
    """Every validation of every run at every clock; ``reached`` is ``tables/curves.csv``."""
    number = _first_cells(results)
    mine = reached[reached.run.isin(number)].sort_values(["run", "update"], kind="stable")
    rows = pd.DataFrame({"run": mine.run.map(number), "k": mine.groupby("run").cumcount()})
    rows = rows.assign(
        epoch=mine.samples / training_reviews,
        n=mine.validation_examples,
        correct=mine.validation_correct,
        loss=mine.validation_loss * mine.validation_examples,
        best=mine.best,
        **{clock: mine[clock] for clock in CLOCKS if clock != "epoch"},
    )
    return Rows.of(rows.reset_index(drop=True))


def read_updates(tables: Path, runs: Iterable[str]) -> pd.DataFrame:
    """The updates of these runs from ``history.parquet``, in order. Raises FileNotFoundError."""
    columns = ["run", "update", "samples", "examples", "correct", "loss", "lr", "gradient_square", "noise_trace"]
    table = pq.read_table(tables / "history.parquet", columns=columns, filters=[("kind", "==", "update")])
    frame = table.to_pandas(strings_to_categorical=True)
    return frame[frame.run.isin(list(dict.fromkeys(runs)))]


def training_rows(
    results: pd.DataFrame, updates: pd.DataFrame, reached: pd.DataFrame, training_reviews: int
) -> tuple[Rows, bool]:
    """At most ``POINTS`` rows per curve: sums over its updates since the row before, at every clock.

    Returns the rows, and whether the seeds of a cell are added up. Seconds between two validations are interpolated.
    """
    rates = _flops_per_sample(reached)
    number = _first_cells(results)
    parts = []
    for run, own in updates.groupby("run", observed=True, sort=False):
        binned = _binned(own)
        known = reached[reached.run == run]
        marks = np.concatenate([[0], known.samples]), np.concatenate([[0], known.seconds])
        parts.append(
            binned.assign(
                run=number[run],
                epoch=binned.samples / training_reviews,
                flops=binned.samples * rates.get(run, np.nan),
                seconds=np.interp(binned.samples, *marks),
            )
        )
    rows = pd.concat(parts, ignore_index=True)
    if len(parts) <= MOST_CURVES:
        return Rows.of(rows), False
    keys = ["model", "lr_policy", "budget", "target_batch_size"]
    first = results.assign(place=range(len(results))).groupby(keys, sort=False).place.transform("first")
    rows["run"] = first.to_numpy()[rows.run]
    together = rows.groupby(["run", "k"], sort=False)
    sums, means = together[["n", "loss", "correct"]].sum(), together[list(CLOCKS)].mean()
    return Rows.of(pd.concat([means, sums], axis=1).reset_index()), True


def _binned(own: pd.DataFrame) -> pd.DataFrame:
    """The updates of one run, at most ``POINTS`` rows of equally many samples."""
    total = int(own.samples.iloc[-1])
    place = np.minimum((own.samples.to_numpy() * POINTS - 1) // total, POINTS - 1)
    weighed = own.assign(
        k=np.unique(place, return_inverse=True)[1], loss=own.loss * own.examples, lr_sum=own.lr.cumsum(), n=own.examples
    )
    ends = weighed.groupby("k")[["update", "samples", "lr_sum"]].last()
    return pd.concat([ends, weighed.groupby("k")[["n", "loss", "correct"]].sum()], axis=1).reset_index()


def noise_rows(
    spec: ReportSpec, results: pd.DataFrame, updates: pd.DataFrame, branches: pd.DataFrame | None
) -> Rows | None:
    """B of every cell over its seeds against samples seen, the target batch sizes, and the measured critical ones.

    None where no update has an estimate.
    """
    span = noise_span(updates, max(spec.batch_sizes))
    by_run = dict(list(updates.groupby("run", observed=True)))
    parts = []
    keys = ["model", "lr_policy", "budget", "target_batch_size"]
    for key, cell in results.groupby(keys, sort=False):
        model, policy, budget, batch = (str(part) for part in key)
        place = {"model": model, "policy": policy, "budget": budget, "batch": int(batch)}
        curve = running_noise_scale(pd.concat([by_run[run] for run in cell.run]), span)
        kept = curve.iloc[np.unique(np.linspace(0, len(curve) - 1, POINTS).astype(int))] if len(curve) else curve
        shown = kept.rename(columns={"samples": "x", "noise_scale": "y"}).assign(kind="noise")
        ends = pd.DataFrame({"x": [0, int(cell.samples.max())], "y": int(batch), "kind": "target"})
        measured = pd.DataFrame({"x": [], "y": [], "kind": []})
        if branches is not None:
            own = branches[branches.critical & branches.run.isin(cell.run)]
            kind = np.where(own.reached.astype(bool), "critical", "at least")
            measured = pd.DataFrame({"x": own.samples, "y": own.branch_batch_size, "kind": kind})
        parts.append(pd.concat([shown, ends, measured], ignore_index=True).assign(**place))
    rows = pd.concat(parts, ignore_index=True)
    if not rows.y[rows.kind == "noise"].notna().any() and branches is None:
        return None
    rows = rows.assign(high=rows.high.replace(np.inf, np.nan))
    return Rows.of(_with_panels(spec, rows))


def sweep_rows(spec: ReportSpec, tried: pd.DataFrame) -> Rows:
    """One row per learning rate of a sweep; ``tried`` is ``tables/sweep.csv``."""
    rows = pd.DataFrame(
        {
            "model": tried.model,
            "policy": tried.lr_policy,
            "budget": tried.budget,
            "batch": tried.target_batch_size,
            "rate": tried.learning_rate,
            "rate_label": [scientific(rate) for rate in tried.learning_rate],
            "y": tried.validation_accuracy,
            "text": [percent(value) for value in tried.validation_accuracy],
            "chosen": tried.chosen,
            "seeds": tried.seeds,
            "diverged": tried.diverged,
        }
    )
    least, span = rows.y.min(), max(rows.y.max() - rows.y.min(), 1e-9)
    rows["rank"] = (rows.y - least) / span
    return Rows.of(_with_panels(spec, rows))


def calibration_rows(results: pd.DataFrame, runs: pd.DataFrame) -> Rows:
    """One row per cell; ``runs`` is ``tables/calibration.csv``."""
    measures = runs.set_index("run")
    columns = ["ece", "nll", "brier", "temperature", "ece_by_chance_high"]
    found = {name: results.run.map(measures[name]).to_numpy() for name in columns}
    return Rows.of(pd.DataFrame({"run": range(len(results))} | found))


def _first_cells(results: pd.DataFrame) -> dict[str, int]:
    """Run → the first row that reads it."""
    return {run: place for place, run in reversed(list(enumerate(results.run)))}


def _flops_per_sample(reached: pd.DataFrame) -> dict[str, float]:
    """Run → FLOPs that one sample costs; missing where it is not known."""
    last = reached.groupby("run").last()
    return dict((last.flops / last.samples).dropna())


def _plain(column: pd.Series) -> list[Value]:
    """Values of JSON's types: whole numbers as such, other numbers with five significant digits, None for missing."""
    if pd.api.types.is_bool_dtype(column):
        return [bool(value) for value in column]
    if pd.api.types.is_integer_dtype(column):
        return [int(value) for value in column]
    if pd.api.types.is_float_dtype(column):
        whole = column.dropna().mod(1).eq(0).all()
        return [None if pd.isna(value) else int(value) if whole else float(f"{value:.5g}") for value in column]
    return [None if value is None or value is pd.NA else value for value in column]
