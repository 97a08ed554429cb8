"""The training examples of a study, easy, ambiguous or hard: in every run, by batch size, and what decides it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchscope.errors import UserError, counted
from batchscope.files import atomic
from batchscope.insight.chosen import chosen_cells
from batchscope.insight.spec import CartographySpec
from batchscope.insight.stored_cartography import FILE, Dynamics, read_dynamics
from batchscope.provenance.layout import Layout
from batchscope.report.spec import GridCell
from batchscope.statistics.cartography import (
    FEWEST_EPOCHS,
    REGIONS,
    DataMap,
    common_epochs,
    data_map,
    pairs_of_maps,
    rank_correlations,
    rank_ratio,
)
from batchscope.statistics.divergence import Pair, Ratio, batch_seed_ratio
from batchscope.statistics.geometry import RunPair
from batchscope.statistics.grid import cells_by

TABLES = ("cartography.csv", "cartography_regions.csv", "cartography_pairs.csv", "cartography_ratio.csv")
OF_CELL = ("model", "lr_policy", "budget")
COLUMNS = {
    "cartography.csv": (
        *("run", *OF_CELL, "target_batch_size", "seed", "example_id", "label", "epochs", "right"),
        *("correctness", "confidence", "variability", "region"),
    ),
    "cartography_regions.csv": (
        *("run", *OF_CELL, "target_batch_size", "run_count", "examples", "asked", "epochs", "longest", "samples"),
        *(*REGIONS, *(f"{region}_in_all" for region in REGIONS), "reason"),
    ),
    "cartography_pairs.csv": (
        *(*OF_CELL, "between", "run_from", "run_to", "batch_from", "batch_to", "seed_from", "seed_to"),
        *("confidence", "variability", "moved", "examples"),
    ),
    "cartography_ratio.csv": (
        *(*OF_CELL, "what", "run_count", "pairs_of_batch_sizes", "pairs_of_seeds"),
        *("between_batch_sizes", "between_seeds", "ratio", "low", "high", "seeds", "examples", "reason"),
    ),
}
Row = dict[str, object]


class Compared(NamedTuple):
    """The runs of a model and budget over the epochs that they have in common."""

    maps: dict[str, DataMap]
    """Run → its map of the N examples; empty where there are too few epochs."""
    facts: Row
    """The columns of ``cartography_regions.csv`` that all of its rows share."""
    first: Dynamics
    """Of any of the runs: the examples are those of all."""
    epochs: int
    """How many epochs they have in common."""


def map_examples(spec: CartographySpec, study_folder: Path) -> None:
    """Write the tables ``TABLES`` of a study. Of a sweep the learning rate that validation chose counts alone.

    Raises UserError where a run's file is missing, or where two runs of a model have other examples.
    """
    layout = Layout(study_folder)
    frames: list[pd.DataFrame] = []
    rows: dict[str, list[Row]] = {name: [] for name in TABLES[1:]}
    for alike in cells_by(chosen_cells(spec.cells, layout), "model", "budget"):
        compared = _compared(alike, layout)
        frames += [_example_rows(cell, compared) for cell in alike if compared.maps]
        for members in cells_by(alike, "policy"):
            rows["cartography_regions.csv"] += _region_rows(members, compared)
            if compared.maps:
                maps = [compared.maps[cell.run] for cell in members]
                pairs = pairs_of_maps([(cell.batch, cell.seed) for cell in members])
                rows["cartography_pairs.csv"] += _pair_rows(members, maps, pairs)
                rows["cartography_ratio.csv"] += _ratio_rows(members, maps, pairs)
    tables = {name: pd.DataFrame(found, columns=COLUMNS[name]) for name, found in rows.items()}
    examples = pd.concat(frames) if frames else pd.DataFrame(columns=COLUMNS["cartography.csv"])
    for name, table in {"cartography.csv": examples, **tables}.items():
        with atomic(study_folder / "tables" / name) as temporary:
            table.to_csv(temporary, index=False)


def _compared(cells: Sequence[GridCell], layout: Layout) -> Compared:
    found = {run: read_dynamics(layout.run(run)) for run in dict.fromkeys(cell.run for cell in cells)}
    first = next(iter(found.values()))
    for run, dynamics in found.items():
        if not np.array_equal(dynamics.example_id, first.example_id):
            raise UserError(f"{layout.run(run) / FILE} is of other examples; start the workflow again")
    epochs = common_epochs([[end.samples for end in dynamics.ends] for dynamics in found.values()])
    longest = max(len(dynamics.ends) for dynamics in found.values())
    facts: Row = {"examples": len(first.example_id), "asked": first.asked, "epochs": epochs, "longest": longest}
    facts |= {"samples": first.ends[epochs - 1].samples if epochs else None, "reason": None}
    if epochs < FEWEST_EPOCHS:
        ends = f"the runs end {counted(epochs, 'epoch')} at equal samples seen"
        return Compared({}, facts | {"reason": f"{ends}, and {FEWEST_EPOCHS} are needed"}, first, epochs)
    maps = {run: data_map(one.probability[:, :epochs], one.right[:, :epochs]) for run, one in found.items()}
    return Compared(maps, facts, first, epochs)


def _labels(cell: GridCell) -> Row:
    return {"model": cell.model, "lr_policy": cell.policy, "budget": cell.budget}


def _example_rows(cell: GridCell, compared: Compared) -> pd.DataFrame:
    """A row for each example of a cell."""
    found, epochs = compared.maps[cell.run], compared.epochs
    columns: Row = {"run": cell.run, **_labels(cell), "target_batch_size": cell.batch, "seed": cell.seed}
    columns |= {"example_id": compared.first.example_id, "label": compared.first.label, "epochs": epochs}
    columns |= {"right": found.right, "correctness": found.right / epochs}
    columns |= {"confidence": found.confidence.round(6), "variability": found.variability.round(6)}
    columns |= {"region": np.array(REGIONS)[found.region]}
    return pd.DataFrame(columns, columns=COLUMNS["cartography.csv"])


def _region_rows(members: Sequence[GridCell], compared: Compared) -> list[Row]:
    """Examples by region: a row for all batch sizes together, whose ``target_batch_size`` is empty, one for each."""
    rows: list[Row] = []
    for batch in (None, *dict.fromkeys(cell.batch for cell in members)):
        mine = [cell for cell in members if batch in (None, cell.batch)]
        row: Row = {"run": mine[0].run if batch else None, **_labels(members[0]), "target_batch_size": batch}
        row |= {"run_count": len(mine)} | compared.facts
        if compared.maps:
            region = np.stack([compared.maps[cell.run].region for cell in mine])
            for number, name in enumerate(REGIONS):
                inside = region == number
                row |= {name: int(inside.sum()), f"{name}_in_all": int(inside.all(0).sum())}
        rows.append(row)
    return rows


def _pair_rows(members: Sequence[GridCell], maps: Sequence[DataMap], pairs: Sequence[RunPair]) -> list[Row]:
    """Every pair of runs: rank correlations, and how many examples change their region."""
    confidence, variability = (rank_correlations(values) for values in _stacked(maps))
    rows: list[Row] = []
    for kind, first, second in pairs:
        one, other = members[first], members[second]
        row: Row = _labels(one) | {"between": kind, "run_from": one.run, "run_to": other.run}
        row |= {"batch_from": one.batch, "batch_to": other.batch, "seed_from": one.seed, "seed_to": other.seed}
        row |= {"confidence": confidence[first, second], "variability": variability[first, second]}
        moved = maps[first].region != maps[second].region
        rows.append(row | {"moved": int(moved.sum()), "examples": len(moved)})
    return rows


def _stacked(maps: Sequence[DataMap]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Confidence and variability of all runs, each ``[R, N]``."""
    return np.stack([one.confidence for one in maps]), np.stack([one.variability for one in maps])


def _ratio_rows(members: Sequence[GridCell], maps: Sequence[DataMap], pairs: Sequence[RunPair]) -> list[Row]:
    """Do batch sizes differ more than seeds? In the order by confidence, by variability, and in the region."""
    seeds = [cell.seed for cell in members]
    moved: dict[str, list[Pair]] = {"batch sizes": [], "seeds": []}
    for kind, first, second in pairs:
        differs = (maps[first].region != maps[second].region).astype(float)
        moved[kind].append(Pair(seeds[first], seeds[second], differs))
    across, between = moved["batch sizes"], moved["seeds"]
    shared: Row = {**_labels(members[0]), "run_count": len(members)}
    shared |= {"pairs_of_batch_sizes": len(across), "pairs_of_seeds": len(between)}
    if not across or not between:
        return [shared | {"what": "region", "reason": "needs two batch sizes and two seeds"}]
    confidence, variability = _stacked(maps)
    found = {
        "confidence": rank_ratio(confidence, seeds, pairs),
        "variability": rank_ratio(variability, seeds, pairs),
        "region": batch_seed_ratio(across, between),
    }
    return [shared | {"what": what} | _ratio_row(ratio) for what, ratio in found.items()]


def _ratio_row(ratio: Ratio | None) -> Row:
    if ratio is None:
        return {"reason": "needs values that differ between the examples"}
    found: Row = dict(ratio._asdict())
    return found | {"examples": found.pop("reviews"), "reason": None}
