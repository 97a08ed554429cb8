"""The geometry of a study's runs: what was measured around each, what lies between two, and what it says of accuracy.

The runs of a pair and a few vectors of the size of their weights are in memory at a time.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchscope.data.tokens import load_tokens
from batchscope.errors import counted
from batchscope.evaluation.records import Metrics
from batchscope.files import atomic, read_json, read_json_lines
from batchscope.hardware.device import pick_device
from batchscope.insight.chosen import chosen_cells
from batchscope.insight.loss_surface import ExampleBatch, LossSurface, count_of, drawn_examples, pooled_features
from batchscope.insight.records import CheckpointGeometry, GeometryOfRun
from batchscope.insight.spec import GeometrySpec
from batchscope.model.checkpoint import load_checkpoint
from batchscope.provenance.layout import Layout, checkpoints_of
from batchscope.report.spec import GridCell
from batchscope.statistics.divergence import Pair, batch_seed_ratio
from batchscope.statistics.geometry import (
    FEWEST_RUNS,
    RunPair,
    association,
    barrier,
    linear_cka,
    pairs_of_runs,
)
from batchscope.statistics.grid import cells_by

FILES = ("geometry", "geometry_pairs", "geometry_paths", "geometry_ratio", "geometry_correlations")
SHARPNESS = ("average", "one_step", "adaptive")
MEASURES = (
    *SHARPNESS,
    *(f"{name}_normalised" for name in SHARPNESS),
    *("eigenvalue_1", "gradient_norm", "distance"),
)
"""Columns of ``geometry.csv`` that are compared with accuracy, beside ``lr_sum``."""
FEWEST_SEEDS = 3
"""Resampling two seeds says nothing of the scatter between seeds."""
OPEN_AT_ONCE = 2
Numbers = NDArray[np.float64]
Row = dict[str, object]


class Between(NamedTuple):
    """What lies between the best checkpoints of two runs."""

    positions: Numbers
    """``[K]``, from 0 at the first run to 1 at the second."""
    losses: Numbers
    """``[K]``: training loss of the weights between them."""
    distance: float
    """Norm of the difference of their weights."""
    cka: float
    """Linear CKA of their pooled features."""
    examples: int
    """Training examples that it rests on."""


Compare = Callable[[str, str], Between]
"""Two runs, by their folders below ``runs/`` → what lies between them."""


def compare_geometry(spec: GeometrySpec, study_folder: Path, device_wanted: str) -> None:
    """Write the tables ``FILES`` of a study. Of a sweep the learning rate that validation chose counts alone."""
    layout, device = Layout(study_folder), pick_device(device_wanted)

    def opened(model: str) -> Compare:
        tokens = load_tokens(layout.tokens(model) / "train.arrow")
        return Runs(layout, drawn_examples(tokens, spec.examples, device), spec.path_points).between

    write_geometry(chosen_cells(spec.cells, layout), layout, spec.pairs, opened)


def write_geometry(
    cells: Sequence[GridCell], layout: Layout, most_pairs: int, opened: Callable[[str], Compare]
) -> None:
    """Write the tables from the files of the runs; ``opened`` gives what compares two runs of a model."""
    tables: dict[str, list[Row]] = {name: [] for name in FILES}
    for cell in cells:
        if not cell.shared:
            tables["geometry"] += _rows_of_run(cell, layout.run(cell.run))
    for of_model in cells_by(cells, "model"):
        compare = opened(of_model[0].model)
        for members in cells_by(of_model, "policy", "budget"):
            compared = pairs_of_runs(members, most_pairs)
            found = [compare(members[pair.first].run, members[pair.second].run) for pair in compared]
            for pair, between in zip(compared, found, strict=True):
                described, path = _described(pair, members), zip(between.positions, between.losses, strict=True)
                tables["geometry_pairs"].append(described | _pair_row(between))
                tables["geometry_paths"] += [described | {"position": at, "loss": loss} for at, loss in path]
            tables["geometry_ratio"] += _ratio_rows(members, compared, found)
    tables["geometry_correlations"] = _correlation_rows(pd.DataFrame(tables["geometry"]))
    for name, rows in tables.items():
        with atomic(layout.study / "tables" / f"{name}.csv") as temporary:
            pd.DataFrame(rows, columns=None if rows else ["model"]).to_csv(temporary, index=False)


# ------------------------------------------------------------------------------------------------------- one run


def _rows_of_run(cell: GridCell, folder: Path) -> list[Row]:
    """A row for the best and one for the last checkpoint of a run."""
    found: GeometryOfRun = read_json(folder / "geometry.json")
    metrics: Metrics = read_json(folder / "metrics.json")
    rates = _learning_rates(folder / "history.jsonl")
    rows = []
    for name, part, tested in (
        ("best", found["best"], metrics["test"]["best"]),
        ("last", found["last"], metrics["test"]["last"]),
    ):
        row: Row = {"run": cell.run, **_labels(cell), "target_batch_size": cell.batch, "seed": cell.seed}
        row |= {"checkpoint": name, "epoch": part["epoch"], "update": part["update"]}
        row |= {"lr_sum": math.fsum(rates[: part["update"]])}
        row |= {f"test_{key}": tested[key] for key in ("correct", "examples", "accuracy")}
        row |= {"examples": found["examples"], "asked": found["asked"], "parameters": found["parameters"]}
        rows.append(row | _measured(part) | {"distance_reason": found.get("distance_reason")})
    return rows


def _measured(part: CheckpointGeometry) -> Row:
    """What was measured around a checkpoint, flat."""
    plain = ("loss", "correct", "gradient_norm", "weight_norm", "distance", "logit_size")
    row: Row = {name: part[name] for name in plain}  # type: ignore[literal-required]
    row |= part["plain"] | {f"{name}_normalised": value for name, value in part["normalised"].items()}
    row |= {f"eigenvalue_{number}": value for number, value in enumerate(part["eigenvalues"], 1)}
    return row | {"hessian_products": part["hessian_products"], "hessian_reason": part.get("hessian_reason")}


def _learning_rates(path: Path) -> list[float]:
    """The learning rate of every update, in order. Raises DamagedFileError."""
    return [line["lr"] for line in read_json_lines(path) if line["kind"] == "update"]


def _labels(cell: GridCell) -> Row:
    return {"model": cell.model, "lr_policy": cell.policy, "budget": cell.budget}


# -------------------------------------------------------------------------------------------------- pairs of runs


class Runs:
    """Runs of one model, opened as they are needed, at most ``OPEN_AT_ONCE`` at a time."""

    def __init__(self, layout: Layout, examples: list[ExampleBatch], points: int) -> None:
        """``points``: of each line, its ends included."""
        self.layout, self.examples = layout, examples
        self.known: dict[tuple[str, str], Between] = {}
        self.positions = np.linspace(0, 1, points)
        self.device = examples[0].ids.device
        self.opened: dict[str, LossSurface] = {}
        self.features: dict[str, Numbers] = {}
        self.losses: dict[str, float] = {}

    def between(self, one: str, other: str) -> Between:
        """What lies between two runs, each named by its folder below ``runs/``."""
        if (one, other) not in self.known:
            first, second = self._open(one, keep=other), self._open(other, keep=one)
            step = second.point - first.point
            inner = [first.loss(first.point + float(at) * step) for at in self.positions[1:-1]]
            losses = np.array([self.losses[one], *inner, self.losses[other]])
            cka = linear_cka(self.features[one], self.features[other])
            distance = float(step.norm())
            self.known[one, other] = Between(self.positions, losses, distance, cka, count_of(self.examples))
        return self.known[one, other]

    def _open(self, run: str, keep: str) -> LossSurface:
        """The loss around a run's best checkpoint; ``keep`` stays open if it is."""
        if run not in self.opened:
            for name in list(self.opened):
                if len(self.opened) >= OPEN_AT_ONCE and name != keep:
                    del self.opened[name]
            model, _ = load_checkpoint(checkpoints_of(self.layout.run(run))["best"], self.device)
            surface = self.opened[run] = LossSurface(model, self.examples)
            if run not in self.features:
                self.features[run] = pooled_features(model, self.examples)
                self.losses[run] = surface.loss(surface.point)
        return self.opened[run]


def _described(pair: RunPair, members: Sequence[GridCell]) -> Row:
    one, other = members[pair.first], members[pair.second]
    row = _labels(one) | {"between": pair.kind, "run_from": one.run, "run_to": other.run}
    row |= {"batch_from": one.batch, "batch_to": other.batch}
    return row | {"seed_from": one.seed, "seed_to": other.seed}


def _pair_row(between: Between) -> Row:
    """The columns of ``geometry_pairs.csv`` that say what lies between two runs."""
    highest = barrier(between.positions, between.losses)
    row: Row = {"examples": between.examples, "loss_from": between.losses[0], "loss_to": between.losses[-1]}
    row |= {"barrier": highest.height, "barrier_at": highest.at}
    return row | {"distance": between.distance, "cka": between.cka}


def _ratio_rows(members: Sequence[GridCell], compared: Sequence[RunPair], found: Sequence[Between]) -> list[Row]:
    """Do batch sizes lie further apart than seeds? By the barrier between two runs, and by 1 − CKA."""
    rows: list[Row] = []
    for what in ("barrier", "1 - CKA"):
        of_kind: dict[str, list[Pair]] = {"batch sizes": [], "seeds": []}
        for pair, between in zip(compared, found, strict=True):
            value = barrier(between.positions, between.losses).height if what == "barrier" else 1 - between.cka
            seeds = members[pair.first].seed, members[pair.second].seed
            of_kind[pair.kind].append(Pair(*seeds, np.array([value])))
        across, between_seeds = of_kind["batch sizes"], of_kind["seeds"]
        row = _labels(members[0]) | {"what": what}
        row |= {"pairs_of_batch_sizes": len(across), "pairs_of_seeds": len(between_seeds)}
        ratio = batch_seed_ratio(across, between_seeds)
        if ratio is None:
            rows.append(row | {"reason": "needs two batch sizes and two seeds: there is nothing to compare with"})
            continue
        row |= {name: value for name, value in ratio._asdict().items() if name not in ("reviews", "low", "high")}
        if ratio.seeds < FEWEST_SEEDS:
            rows.append(row | {"reason": f"an interval needs {FEWEST_SEEDS} seeds"})
        else:
            rows.append(row | {"low": ratio.low, "high": ratio.high})
    return rows


# --------------------------------------------------------------------------------------------------- all the runs


def _correlation_rows(table: pd.DataFrame) -> list[Row]:
    """A row per model, budget, checkpoint and measure; the reason in place of numbers where there are too few runs."""
    rows: list[Row] = []
    for (model, budget, checkpoint), group in table.groupby(["model", "budget", "checkpoint"], sort=False):
        for measure in ("lr_sum", *MEASURES):
            labels: Row = {"model": model, "budget": budget, "checkpoint": checkpoint, "measure": measure}
            there = group.dropna(subset=[measure]) if measure in group else group.iloc[:0]
            labels |= {"run_count": len(there), "cell_count": len(there.groupby(["lr_policy", "target_batch_size"]))}
            if len(there) < FEWEST_RUNS:
                few = f"{counted(len(there), 'run')}: too few, a rank correlation needs {FEWEST_RUNS}"
                rows.append(labels | {"reason": few})
                continue
            columns = (there[name].to_numpy(np.float64) for name in (measure, "test_accuracy", "lr_sum"))
            rows.append(labels | association(*columns)._asdict())
    return rows
