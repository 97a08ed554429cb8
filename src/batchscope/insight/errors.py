"""The errors of a study on its test reviews: review by review, by group, and by what decides them."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchscope.data.tables import Corpus, read_corpus
from batchscope.data.tokens import Tokens, load_tokens
from batchscope.errors import UserError
from batchscope.evaluation.stored import FILE, read_predictions
from batchscope.files import atomic
from batchscope.insight.hardest import COLUMNS, HARDEST, RunVerdicts, hardest_rows
from batchscope.insight.label_review import TABLE, Rejudged, read_rejudged, review_rows
from batchscope.insight.reading import Reader
from batchscope.insight.spec import ErrorsSpec
from batchscope.provenance.layout import Layout
from batchscope.report.spec import GridCell
from batchscope.statistics.divergence import Ratio, batch_seed_ratio
from batchscope.statistics.errors import RunOfReviews, flips, length_groups, margins, verdicts
from batchscope.statistics.grid import cells_by
from batchscope.statistics.paired import wilson_interval

TABLES = ("errors.csv", "error_counts.csv", "error_groups.csv", "flips.csv", "margins.csv", *HARDEST, TABLE)
QUANTILES = 101
EXCERPT = 200
"""Characters of a review in the table of all of them."""
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
    corpus = read_corpus(layout.corpus)
    tables: dict[str, list[Row]] = {name: [] for name in TABLES}
    for model in dict.fromkeys(cell.model for cell in spec.cells):
        tokens = load_tokens(layout.tokens(model) / "test.arrow")
        cells = [cell for cell in spec.cells if cell.model == model]
        read = {run: _tested(run, tokens, layout) for run in dict.fromkeys(cell.run for cell in cells)}
        reviews = _review_rows(model, tokens, corpus, list(read.values()))
        tables["errors.csv"] += reviews
        wanted = spec.label_review
        rejudged = read_rejudged(wanted, corpus, tokens.example_id, tokens.classes) if wanted else None
        runs = [
            RunVerdicts(cell, read[cell.run].prediction, read[cell.run].margin) for cell in cells if not cell.shared
        ]
        tokenizer = layout.tokens(model) / "tokenizer"
        found = hardest_rows(reviews, runs, tokens, corpus, Reader.load(tokenizer, spec.truncation), spec.hardest)
        for name, rows in zip(HARDEST, found, strict=True):
            tables[name] += rows
        for members in cells_by(cells, "policy", "budget"):
            tables["error_counts.csv"] += _count_rows(members, tokens, read, spec.boundary)
            tables["error_groups.csv"] += _group_rows(members, tokens, read)
            tables["margins.csv"] += _margin_rows(members, read)
            tables["flips.csv"].append(_flip_row(members, read))
            if rejudged is not None:
                tables[TABLE] += _rejudged_rows(members, tokens, read, rejudged)
    if spec.label_review is None:
        del tables[TABLE]
    for name, rows in tables.items():
        with atomic(study_folder / "tables" / name) as temporary:
            pd.DataFrame(rows, columns=None if rows else list(COLUMNS.get(name, ()))).to_csv(temporary, index=False)


def _tested(run: str, tokens: Tokens, layout: Layout) -> Tested:
    tested = read_predictions(layout.run(run), "test")
    order = np.argsort(tested.example_id)[np.argsort(np.argsort(tokens.example_id))]
    if not np.array_equal(tested.example_id[order], tokens.example_id):
        path = layout.run(run) / FILE
        raise UserError(f"{path} is not of the test reviews in the tokens; start the workflow again")
    logits = tested.logits[order]
    return Tested(logits.argmax(1), margins(logits, tokens.label))


def _review_rows(model: str, tokens: Tokens, corpus: Corpus, tested: list[Tested]) -> list[Row]:
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
        "excerpt": [" ".join(text[:EXCERPT].split()) for text in corpus.texts_of(tokens.example_id)],
    }
    table = pd.DataFrame(columns).sort_values(["wrong", "mean_margin"], ascending=[False, True], kind="stable")
    return [dict(row) for row in table.to_dict("records")]


def _labels(cell: GridCell) -> Row:
    return {"model": cell.model, "lr_policy": cell.policy, "budget": cell.budget}


def _count_rows(members: list[GridCell], tokens: Tokens, read: dict[str, Tested], boundary: float) -> list[Row]:
    """Wrong predictions and reviews that are always, sometimes or never wrong: a row for all batch sizes together,
    whose ``target_batch_size`` is empty, and one for each."""
    rows: list[Row] = []
    for batch in (None, *dict.fromkeys(cell.batch for cell in members)):
        tested = [read[cell.run] for cell in members if batch in (None, cell.batch)]
        wrong = np.stack([run.prediction != tokens.label for run in tested])
        near = np.abs(np.stack([run.margin for run in tested])) < boundary
        said = Counter(verdicts(wrong))
        row: Row = {"run": _first_run(members, batch), **_labels(members[0]), "target_batch_size": batch}
        row |= {"run_count": len(wrong), "examples": wrong.shape[1], "wrong": int(wrong.sum())}
        row |= {"near_boundary": int(near.sum()), "wrong_near_boundary": int((wrong & near).sum())}
        rows.append(row | {verdict: said[verdict] for verdict in ("always", "sometimes", "never")})
    return rows


def _first_run(members: list[GridCell], batch: int | None) -> str | None:
    """The run of a batch size's first seed; None for all batch sizes."""
    return next((cell.run for cell in members if cell.batch == batch), None)


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
            row: Row = {"run": _first_run(members, batch), **_labels(members[0]), "target_batch_size": batch}
            row |= {"by": kind, "group": name}
            row |= {"examples": examples, "seeds": len(right), "correct": correct}
            rows.append(row | {"accuracy": accuracy, "low": low_end, "high": high_end})
    return rows


def _rejudged_rows(members: list[GridCell], tokens: Tokens, read: dict[str, Tested], rejudged: Rejudged) -> list[Row]:
    """Accuracy of every batch size as labelled and as re-judged."""
    tested: dict[int, list[NDArray[np.int64]]] = {}
    for cell in members:
        tested.setdefault(cell.batch, []).append(read[cell.run].prediction)
    rows = review_rows(rejudged, tokens.label, tested)
    return [
        {"run": _first_run(members, batch), **_labels(members[0]), **row}
        for batch, row in zip(tested, rows, strict=True)
    ]


def _margin_rows(members: list[GridCell], read: dict[str, Tested]) -> list[Row]:
    """Quantiles of the margins, the seeds of a batch size together."""
    rows: list[Row] = []
    levels = np.linspace(0, 1, QUANTILES)
    for batch in dict.fromkeys(cell.batch for cell in members):
        values = np.concatenate([read[cell.run].margin for cell in members if cell.batch == batch])
        row: Row = {"run": _first_run(members, batch), **_labels(members[0]), "target_batch_size": batch}
        found = np.quantile(values, levels)
        rows += [row | {"share": float(level), "margin": float(m)} for level, m in zip(levels, found, strict=True)]
    return rows


def _flip_row(members: list[GridCell], read: dict[str, Tested]) -> Row:
    """Share of reviews that two runs predict differently: between batch sizes, between seeds, and the ratio."""
    runs = [RunOfReviews(cell.batch, cell.seed, read[cell.run].prediction) for cell in members]
    of_batch, of_seed = flips(runs)
    row: Row = _labels(members[0]) | {"pairs_of_batch_sizes": len(of_batch), "pairs_of_seeds": len(of_seed)}
    row |= dict.fromkeys(Ratio._fields)
    ratio = batch_seed_ratio(of_batch, of_seed)
    if ratio is not None:
        return row | ratio._asdict() | {"reason": None}
    means = {
        name: float(np.mean([pair.divergence.mean() for pair in pairs])) if pairs else None
        for name, pairs in (("between_batch_sizes", of_batch), ("between_seeds", of_seed))
    }
    return row | means | {"reason": "needs two batch sizes and two seeds"}
