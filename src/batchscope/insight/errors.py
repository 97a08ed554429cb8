"""The errors of a study on its test reviews: review by review, by group, and by what decides them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchscope.data.tokens import Tokens, load_tokens
from batchscope.errors import UserError
from batchscope.evaluation.stored import FILE, read_predictions
from batchscope.files import atomic
from batchscope.insight.spec import ErrorsSpec
from batchscope.provenance.layout import Layout
from batchscope.report.spec import GridCell
from batchscope.statistics.divergence import batch_seed_ratio
from batchscope.statistics.errors import RunOfReviews, flips, length_groups, margins, verdicts
from batchscope.statistics.grid import cells_by
from batchscope.statistics.paired import wilson_interval

TABLES = ("errors.csv", "error_groups.csv", "flips.csv", "margins.csv")
QUANTILES = 101
Row = dict[str, object]


class Tested(NamedTuple):
    """The best checkpoint of one run on the N test reviews, in the order of the tokens."""

    prediction: NDArray[np.int64]
    margin: NDArray[np.float64]


def measure_errors(spec: ErrorsSpec, study_folder: Path) -> None:
    """Write the tables ``TABLES`` of a study. Raises UserError if a run's predictions are missing.

    ``errors.csv`` has a row per model and test review, over all runs of the model.
    """
    layout = Layout(study_folder)
    tables: dict[str, list[Row]] = {name: [] for name in TABLES}
    for model in dict.fromkeys(cell.model for cell in spec.cells):
        tokens = load_tokens(layout.tokens(model) / "test.arrow")
        cells = [cell for cell in spec.cells if cell.model == model]
        read = {run: _tested(run, tokens, layout) for run in dict.fromkeys(cell.run for cell in cells)}
        tables["errors.csv"] += _review_rows(model, tokens, list(read.values()))
        for members in cells_by(cells, "policy", "budget"):
            tables["error_groups.csv"] += _group_rows(members, tokens, read)
            tables["margins.csv"] += _margin_rows(members, read)
            tables["flips.csv"].append(_flip_row(members, read))
    for name, rows in tables.items():
        with atomic(study_folder / "tables" / name) as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False)


def _tested(run: str, tokens: Tokens, layout: Layout) -> Tested:
    tested = read_predictions(layout.run(run), "test")
    order = np.argsort(tested.example_id)[np.argsort(np.argsort(tokens.example_id))]
    if not np.array_equal(tested.example_id[order], tokens.example_id):
        path = layout.run(run) / FILE
        raise UserError(f"{path} is not of the test reviews in the tokens; start the workflow again")
    logits = tested.logits[order]
    return Tested(logits.argmax(1), margins(logits, tokens.label))


def _review_rows(model: str, tokens: Tokens, tested: list[Tested]) -> list[Row]:
    wrong = np.stack([run.prediction != tokens.label for run in tested])
    margin = np.stack([run.margin for run in tested])
    columns: Row = {
        "model": model,
        "example_id": tokens.example_id,
        "label": [tokens.classes[number] for number in tokens.label],
        "tokens": tokens.length,
        "truncated": tokens.truncated,
        "runs": len(tested),
        "wrong": wrong.sum(0),
        "verdict": verdicts(wrong),
        "mean_margin": margin.mean(0),
        "lowest_margin": margin.min(0),
        "highest_margin": margin.max(0),
    }
    table = pd.DataFrame(columns).sort_values(["wrong", "mean_margin"], ascending=[False, True], kind="stable")
    return [dict(row) for row in table.to_dict("records")]


def _labels(cell: GridCell) -> Row:
    return {"model": cell.model, "lr_policy": cell.policy, "budget": cell.budget}


def _group_rows(members: list[GridCell], tokens: Tokens, read: dict[str, Tested]) -> list[Row]:
    """Accuracy by class, truncation and length, the seeds of a batch size together."""
    sets: list[tuple[str, str, NDArray[np.bool_]]] = [
        ("class", name, tokens.label == number) for number, name in enumerate(tokens.classes)
    ]
    sets += [("truncated", str(flag).lower(), tokens.truncated == flag) for flag in (False, True)]
    for low, high in length_groups(tokens.length):
        sets.append(("tokens", f"{low} to {high}", (tokens.length >= low) & (tokens.length <= high)))
    rows: list[Row] = []
    for batch in dict.fromkeys(cell.batch for cell in members):
        right = np.stack([read[cell.run].prediction == tokens.label for cell in members if cell.batch == batch])
        for kind, name, inside in sets:
            examples, correct = int(inside.sum()), int(right[:, inside].sum())
            if not examples:
                continue
            accuracy = correct / (examples * len(right))
            low_end, high_end = wilson_interval(accuracy, examples)
            row: Row = {**_labels(members[0]), "target_batch_size": batch, "by": kind, "group": name}
            row |= {"examples": examples, "seeds": len(right), "correct": correct}
            rows.append(row | {"accuracy": accuracy, "low": low_end, "high": high_end})
    return rows


def _margin_rows(members: list[GridCell], read: dict[str, Tested]) -> list[Row]:
    """Quantiles of the margins, the seeds of a batch size together."""
    rows: list[Row] = []
    levels = np.linspace(0, 1, QUANTILES)
    for batch in dict.fromkeys(cell.batch for cell in members):
        values = np.concatenate([read[cell.run].margin for cell in members if cell.batch == batch])
        row: Row = {**_labels(members[0]), "target_batch_size": batch}
        found = np.quantile(values, levels)
        rows += [row | {"share": float(level), "margin": float(m)} for level, m in zip(levels, found, strict=True)]
    return rows


def _flip_row(members: list[GridCell], read: dict[str, Tested]) -> Row:
    """Share of reviews that two runs predict differently: between batch sizes, between seeds, and the ratio."""
    runs = [RunOfReviews(cell.batch, cell.seed, read[cell.run].prediction) for cell in members]
    of_batch, of_seed = flips(runs)
    row: Row = _labels(members[0]) | {"pairs_of_batch_sizes": len(of_batch), "pairs_of_seeds": len(of_seed)}
    ratio = batch_seed_ratio(of_batch, of_seed)
    if ratio is not None:
        return row | ratio._asdict()
    means = {
        name: float(np.mean([pair.divergence.mean() for pair in pairs])) if pairs else None
        for name, pairs in (("between_batch_sizes", of_batch), ("between_seeds", of_seed))
    }
    return row | means | {"reason": "needs two batch sizes and two seeds"}
