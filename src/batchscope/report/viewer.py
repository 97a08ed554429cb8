"""The attention viewer of the page: every head's map of the shown reviews, as many runs as the page has room for.

A run's maps of one review are bytes in the order layer, head, query, key; deflated, and in base64. Level 255 of a head
stands for its largest weight.
"""

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from batchscope.errors import UserError, counted
from batchscope.files import read_json
from batchscope.insight.records import AttentionMeasures, ReviewMeasures
from batchscope.report.embedded_data import json_island
from batchscope.report.spec import GridCell, ReportSpec

MOST_BYTES = 7_000_000
"""Of all maps in the page, in base64."""
DIGITS = 5
"""Of the rollout."""


class ViewerSection(NamedTuple):
    """What the viewer reads, and what the page says about it."""

    data: dict[str, object]
    kept: str
    """What there was no room for; empty where everything is there."""
    reasons: list[str]
    """Models without attention, and why."""

    @property
    def island(self) -> Markup:
        """The element that the viewer reads."""
        return json_island("attention", self.data)


class Item(NamedTuple):
    """The maps of one run and review, as the viewer reads them."""

    run: str
    review: str
    content: dict[str, object]
    size: int
    """Bytes of the maps in base64."""


def viewer_section(spec: ReportSpec, study_folder: Path, most_bytes: int = MOST_BYTES) -> ViewerSection | None:
    """The data of the viewer; None where no model gives attention. ``spec`` is the grid as the sweeps chose it.

    Raises FileNotFoundError where a run has no attention.
    """
    runs = {cell.run: cell for cell in reversed(spec.cells)}
    measures: dict[str, AttentionMeasures] = {
        run: read_json(study_folder / "runs" / run / "attention" / "measures.json") for run in runs
    }
    reasons = {runs[run].model: found["reason"] for run, found in measures.items() if "reason" in found}
    cells = [cell for cell in spec.cells if cell.model not in reasons]
    if not cells or not spec.review_names:
        return None
    items, wanted = chosen_items(spec, cells, measures, study_folder / "runs", most_bytes)
    data = {
        "classes": measures[cells[0].run]["classes"],
        "reviews": [
            {"name": name, "title": _review(measures[cells[0].run], name)["title"]} for name in spec.review_names
        ],
        "models": {
            model: _texts(measures[next(cell.run for cell in cells if cell.model == model)])
            for model in dict.fromkeys(cell.model for cell in cells)
        },
        "runs": [
            {"run": cell.run, "model": cell.model, "policy": cell.candidate_of or cell.policy, "budget": cell.budget}
            | {"batch": str(cell.batch), "seed": str(cell.seed)}
            for cell in cells
        ],
        "maps": {f"{item.run} {item.review}": item.content for item in items},
    }
    said = [f"{model}: {reasons[model]}" for model in spec.model_names if model in reasons]
    return ViewerSection(data, _kept_in_words(spec, items, wanted, most_bytes), said)


def chosen_items(
    spec: ReportSpec,
    cells: Sequence[GridCell],
    measures: Mapping[str, AttentionMeasures],
    runs_folder: Path,
    most_bytes: int,
) -> tuple[list[Item], int]:
    """The maps that fit into ``most_bytes``, and how many there are in all.

    All runs of the first seed come first, on the first review. Then further seeds and further reviews take turns. What
    does not fit as a whole is left out, so that the pickers offer full grids; of the first part as many as fit.
    """
    items: list[Item] = []
    parts = list(_parts(spec, cells))
    for number, (review, runs) in enumerate(parts):
        part: list[Item] = []
        room = most_bytes - sum(item.size for item in items)
        for run in runs:
            item = read_item(runs_folder / run, run, _review(measures[run], review))
            if sum(one.size for one in part) + item.size > room:
                break
            part.append(item)
        if len(part) == len(runs) or number == 0:
            items += part
        if len(part) < len(runs):
            break
    return items, sum(len(runs) for _, runs in parts)


def _parts(spec: ReportSpec, cells: Sequence[GridCell]) -> Iterator[tuple[str, list[str]]]:
    """Review and runs of one seed, the most telling first; a run that several cells read comes once."""
    places = [(seed, review) for seed in range(len(spec.seeds)) for review in range(len(spec.review_names))]
    for seed, review in sorted(places, key=lambda place: (sum(place), place[1])):
        runs = [cell.run for cell in cells if cell.seed == spec.seeds[seed]]
        yield spec.review_names[review], list(dict.fromkeys(runs))


def read_item(run_folder: Path, run: str, review: ReviewMeasures) -> Item:
    """The maps of one run and review. Raises UserError where an earlier version wrote none by head."""
    name, path = review["name"], run_folder / "attention" / "attention.npz"
    with np.load(path) as arrays:
        if f"{name}.levels" not in arrays.files:
            raise UserError(f"{path} has no maps of review {name!r} by head; run the attention stage of this run again")
        levels, largest = arrays[f"{name}.levels"], arrays[f"{name}.largest"]
    packed = base64.b64encode(zlib.compress(levels.tobytes(), 9)).decode("ascii")
    content: dict[str, object] = {
        "prediction": review["prediction"],
        "probability": review["probability"],
        "rollout": [round(share, DIGITS) for share in review["rollout"]],
        "largest": [float(f"{weight:.4g}") for weight in largest.ravel()],
        "levels": packed,
    }
    return Item(run, name, content, len(packed))


def _texts(measures: AttentionMeasures) -> dict[str, object]:
    """What the runs of a model have in common: the windows of its layers, and each review's tokens and words."""
    texts = {
        review["name"]: {"tokens": review["tokens"], "words": review["words"], "label": review["label"]}
        for review in measures["reviews"]
    }
    return {"windows": [layer["window"] for layer in measures["reviews"][0]["layers"]], "texts": texts}


def _review(measures: AttentionMeasures, name: str) -> ReviewMeasures:
    return next(review for review in measures["reviews"] if review["name"] == name)


def _kept_in_words(spec: ReportSpec, items: Sequence[Item], wanted: int, most_bytes: int) -> str:
    """What the page has no room for."""
    if len(items) == wanted:
        return ""
    runs, reviews = len({item.run for item in items}), len({item.review for item in items})
    return (
        f"To stay below {most_bytes / 1e6:g} MB, the page holds {len(items)} of the {counted(wanted, 'set')} of maps, "
        f"one per run and review: {counted(runs, 'run')}, {reviews} of {counted(len(spec.review_names), 'review')}. "
        "All maps are in runs/…/attention/attention.npz."
    )
