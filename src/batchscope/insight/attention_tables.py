"""The tables of the runs' attention, row by row: measures of every head, and divergences by head, layer and study."""

import csv
from collections.abc import Callable, Sequence
from itertools import combinations
from math import isnan
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchscope.files import atomic
from batchscope.insight.records import AttentionOfRun
from batchscope.report.spec import GridCell
from batchscope.statistics.divergence import Pair, Ratio, batch_seed_ratio
from batchscope.statistics.grid import cells_by

Row = dict[str, object]
Kind = Literal["batch sizes", "seeds", "initial weights"]
GROUP = ("model", "lr_policy", "budget")
RUN = ("run", "model", "target_batch_size", "lr_policy", "budget", "seed")
NO_RATIO = "needs two batch sizes and two seeds: there is nothing to compare the batch sizes with"


class Compared(NamedTuple):
    """Two models of a group, by their positions, and what differs between them."""

    kind: Kind
    first: int
    second: int
    seeds: tuple[int, int]


class ComparedGroup(NamedTuple):
    """The runs of a model, LR policy and budget, compared with each other."""

    pairs: list[Compared]
    divergence: NDArray[np.float64]
    """``[pairs, N, layers, H]``"""
    windows: list[int | None]
    """Of each layer; None for a global one."""


def write_tables(
    folder: Path,
    cells: Sequence[GridCell],
    heads_of: Callable[[GridCell], AttentionOfRun],
    compared: Callable[[Sequence[GridCell]], ComparedGroup],
) -> None:
    """Write the tables ``TABLES`` of a study into ``folder``. A model without attention has a row with the reason."""
    tables: dict[str, list[Row]] = {name: [] for name in TABLES}
    for cell in cells:
        if not cell.shared:
            found = heads_of(cell)
            for name, of_run in OF_RUNS.items():
                tables[name] += of_run(cell, found)
    for members in cells_by(cells, "model", "policy", "budget"):
        first = members[0]
        labels: Row = dict(zip(GROUP, (first.model, first.policy, first.budget), strict=True))
        found = heads_of(first)
        if "reason" in found:
            tables["divergence_ratio.csv"].append(labels | {"reason": found["reason"]})
            continue
        group = compared(members)
        for name, of_group in OF_GROUPS.items():
            tables[name] += [labels | row for row in of_group(*group)]
    for name, rows in tables.items():
        write_rows(folder / name, RUN if name in OF_RUNS else GROUP, rows)


def write_rows(path: Path, first: Sequence[str], rows: Sequence[Row]) -> None:
    """Write a CSV with the columns ``first`` and every other column that a row has."""
    columns = dict.fromkeys([*first, *(name for row in rows for name in row)])
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows)


def comparisons(members: Sequence[GridCell], initial: Sequence[int]) -> list[Compared]:
    """Pairs of batch sizes of one seed, pairs of seeds of one batch size, and each run with its initial weights.

    ``initial`` has the position of each member's initial weights; it is empty where there are none.
    """
    pairs = list(combinations(range(len(members)), 2))
    found: list[Compared] = []
    for first, second in pairs:
        one, two = members[first], members[second]
        if one.seed == two.seed and one.batch != two.batch:
            found.append(Compared("batch sizes", first, second, (one.seed, two.seed)))
        if one.seed != two.seed and one.batch == two.batch:
            found.append(Compared("seeds", first, second, (one.seed, two.seed)))
    for number, start in enumerate(initial):
        seed = members[number].seed
        found.append(Compared("initial weights", number, start, (seed, seed)))
    return found


def run_labels(cell: GridCell) -> Row:
    """The columns ``RUN``: whose run it is, under the name of the first cell that reads it."""
    return dict(zip(RUN, (cell.run, cell.model, cell.batch, cell.policy, cell.budget, cell.seed), strict=True))


def head_rows(cell: GridCell, found: AttentionOfRun) -> list[Row]:
    """A row per head, layers and heads counted from 1; one row with the reason where there is no attention."""
    labels = run_labels(cell) | {"reviews": found["reviews"], "asked": found["asked"]}
    if "reason" in found:
        return [labels | {"reason": found["reason"]}]
    rows = []
    for head in found["heads"]:
        row: Row = {**labels, "layer": head["layer"] + 1, "head": head["head"] + 1, "window": head["window"]}
        row |= {name: head[name] for name in ("entropy", "distance", "even_distance", "largest_lift")}
        row |= {f"mass_{name}": value for name, value in head["mass"].items()}
        row |= {f"lift_{name}": value for name, value in head["lift"].items()}
        row |= {f"sink_rate_{epsilon}": value for epsilon, value in head["sink_rates"].items()}
        row |= {f"sinks_{name}": value for name, value in (head["sink_classes"] or {}).items()}
        rows.append(row)
    return rows


def ablation_rows(cell: GridCell, found: AttentionOfRun) -> list[Row]:
    """A row per ablation of a run; one row with the reason where there is none."""
    if reason := found.get("reason") or found.get("no_ablation"):
        return [run_labels(cell) | {"reason": reason}]
    rows = []
    for one in found["ablation"]:
        row: Row = run_labels(cell) | {"removed": one["removed"], "layer_set": one["layers"]}
        row |= {name: one[name] for name in ("reviews", "with_sink", "margin", "change")}
        row |= {f"change_{name}": value for name, value in one["change_quantiles"].items()}
        rows.append(row | {name: one[name] for name in ("flips", "correct_before", "correct_after")})
    return rows


def divergence_rows(pairs: Sequence[Compared], found: NDArray[np.float64], windows: Sequence[int | None]) -> list[Row]:
    """A row per kind of comparison and head, of divergences ``[pairs, N, layers, H]``."""
    rows: list[Row] = []
    for kind in dict.fromkeys(pair.kind for pair in pairs):
        mean = np.mean([found[n].mean(0) for n, pair in enumerate(pairs) if pair.kind == kind], axis=0)
        count = sum(pair.kind == kind for pair in pairs)
        rows += [
            {"between": kind, "layer": layer + 1, "head": head + 1, "window": windows[layer]}
            | {"divergence": float(value), "pairs": count, "reviews": found.shape[1]}
            for layer, values in enumerate(mean)
            for head, value in enumerate(values)
        ]
    return rows


def layer_rows(pairs: Sequence[Compared], found: NDArray[np.float64], windows: Sequence[int | None]) -> list[Row]:
    """A row per layer, its heads averaged: the three mean divergences and the ratio."""
    return [
        {"layer": layer + 1, "window": window} | _compared(pairs, found, [layer])
        for layer, window in enumerate(windows)
    ]


def ratio_rows(pairs: Sequence[Compared], found: NDArray[np.float64], windows: Sequence[int | None]) -> list[Row]:
    """A row for the global and one for the sliding layers, each a mean over its layers and heads."""
    rows: list[Row] = []
    for name in ("global", "sliding"):
        chosen = [layer for layer, window in enumerate(windows) if (window is None) == (name == "global")]
        if chosen:
            rows.append({"attention": name, "layers": len(chosen)} | _compared(pairs, found, chosen))
    return rows


def _compared(pairs: Sequence[Compared], found: NDArray[np.float64], layers: Sequence[int]) -> Row:
    """Mean divergences of some layers and the ratio of two; the reason where there is no ratio."""
    of_kind: dict[Kind, list[Pair]] = {"batch sizes": [], "seeds": [], "initial weights": []}
    for pair, values in zip(pairs, found, strict=True):
        of_kind[pair.kind].append(Pair(*pair.seeds, values[:, list(layers)].mean((1, 2))))
    names: dict[str, Kind] = {"between_batch_sizes": "batch sizes", "between_seeds": "seeds"}
    names |= {"from_initial": "initial weights"}
    row: Row = {
        name: float(np.mean([pair.divergence.mean() for pair in of_kind[kind]])) if of_kind[kind] else None
        for name, kind in names.items()
    }
    ratio = batch_seed_ratio(of_kind["batch sizes"], of_kind["seeds"])
    if ratio is None:
        return row | dict.fromkeys(Ratio._fields[2:]) | {"reviews": found.shape[1], "reason": NO_RATIO}
    return row | {name: None if isnan(value) else value for name, value in ratio._asdict().items()}


OF_RUNS = {"attention_heads.csv": head_rows, "ablation.csv": ablation_rows}
"""Table of every run → what makes its rows."""
OF_GROUPS = {"divergence.csv": divergence_rows, "divergence_layers.csv": layer_rows, "divergence_ratio.csv": ratio_rows}
"""Table of every model, LR policy and budget → what makes its rows."""
TABLES = (*OF_RUNS, *OF_GROUPS)
