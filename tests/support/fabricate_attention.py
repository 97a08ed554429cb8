"""The attention of a fabricated study over many reviews: files and tables in their formats, from random numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from batchscope.files import write_json
from batchscope.insight.attention_tables import ComparedGroup, comparisons, write_tables
from batchscope.insight.key_classes import KEY_CLASSES
from batchscope.report.spec import GridCell, ReportSpec

WINDOWS = {"modernbert": [None, 4, 4, None, 4]}
HEADS, REVIEWS, ASKED = 2, 40, 1000
FAR = {"batch sizes": 0.03, "seeds": 0.02, "initial weights": 0.2}


def windows_of(model: str) -> list[int | None]:
    """Window of each layer of a fabricated model."""
    return WINDOWS.get(model, [None, None])


def write_attention_tables(
    folder: Path, spec: ReportSpec, no_attention: Mapping[str, str], rng: np.random.Generator
) -> None:
    """``attention/heads.json`` of every run, and the tables of the stage ``divergence``."""
    heads = {cell.run: heads_file(cell, no_attention, rng) for cell in spec.cells if not cell.shared}
    for run, found in heads.items():
        write_json(folder / "runs" / run / "attention/heads.json", found)

    def compared(members: Sequence[GridCell]) -> ComparedGroup:
        windows, pairs = windows_of(members[0].model), comparisons(members, range(len(members)))
        shape = (REVIEWS, len(windows), HEADS)
        divergence = np.stack([FAR[pair.kind] * rng.uniform(0.5, 1.5, shape) for pair in pairs])
        return ComparedGroup(pairs, divergence, windows)

    tables = folder / "tables"
    tables.mkdir(exist_ok=True)
    write_tables(tables, spec.cells, lambda cell: heads[cell.run], compared)


def heads_file(cell: GridCell, no_attention: Mapping[str, str], rng: np.random.Generator) -> dict[str, Any]:
    """What the stage ``attention_measures`` writes for a run."""
    found: dict[str, Any] = {"asked": ASKED, "reviews": REVIEWS, "heads": [], "rollout": {}, "ablation": []}
    if cell.model in no_attention:
        return found | {"reason": no_attention[cell.model]}
    for layer, window in enumerate(windows_of(cell.model)):
        for head in range(HEADS):
            lifts = dict(zip(KEY_CLASSES, rng.uniform(0.3, 1, len(KEY_CLASSES)) * [1, 9, 2, 1, 1, 1], strict=True))
            mass = {name: value / sum(lifts.values()) for name, value in lifts.items()}
            found["heads"].append(
                {"layer": layer, "head": head, "window": window, "entropy": rng.uniform(0.4, 0.8)}
                | {"distance": rng.uniform(2, 6), "even_distance": 7.0 if window is None else 2.2}
                | {"largest_lift": rng.uniform(3, 9), "mass": mass, "lift": lifts}
                | {"sink_rates": {f"{e}": float((1 - e) ** 2 * rng.uniform(0.8, 1)) for e in (0.1, 0.2, 0.3, 0.4, 0.5)}}
                | {"sink_classes": mass if head else None}
            )
    sets = ("all", "global", "sliding") if any(windows_of(cell.model)) else ("all",)
    for layers in sets:
        for removed, change in (("sink", -0.4), ("random key", -0.02), ("special tokens", -0.9)):
            quantiles = {"q05": 3, "q25": 1.5, "median": 1, "q75": 0.5, "q95": -0.5}
            found["ablation"].append(
                {"removed": removed, "layers": layers, "reviews": REVIEWS, "with_sink": 0.4, "margin": 2.0}
                | {"change": change * rng.uniform(0.8, 1.2), "flips": int(-10 * change), "correct_before": 34}
                | {"change_quantiles": {name: change * value for name, value in quantiles.items()}, "correct_after": 31}
            )
    found["rollout"] = dict.fromkeys(KEY_CLASSES, 1.0)
    return found
