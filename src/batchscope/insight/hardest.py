"""The reviews that most runs get wrong, in full: their text, what truncation cut away, and every run's verdict."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchscope.data.tables import Corpus
from batchscope.data.tokens import Tokens
from batchscope.insight.reading import Reader
from batchscope.report.spec import GridCell

HARDEST = ("hardest.csv", "hardest_runs.csv")
COLUMNS: dict[str, tuple[str, ...]] = {
    "hardest.csv": (
        *("model", "rank", "example_id", "text_sha256", "label", "runs", "wrong", "mean_margin", "tokens"),
        *("cut_from", "cut_to", "text", "cut", "new_label"),
    ),
    "hardest_runs.csv": (
        *("model", "example_id", "run", "target_batch_size", "lr_policy", "budget", "seed"),
        *("prediction", "right", "margin"),
    ),
}
"""The columns of a table without a row: no review is wrong in any run."""
Row = dict[str, object]


class RunVerdicts(NamedTuple):
    """What one run makes of the N test reviews."""

    cell: GridCell
    prediction: NDArray[np.int64]
    """``[N]``"""
    margin: NDArray[np.float64]
    """``[N]``"""


def text_hash(text: str) -> str:
    """SHA-256 of a text in UTF-8, hexadecimal: by it a re-judged label finds its review."""
    return sha256(text.encode()).hexdigest()


def hardest_rows(
    reviews: Sequence[Mapping[str, object]],
    runs: Sequence[RunVerdicts],
    tokens: Tokens,
    corpus: Corpus,
    reader: Reader,
    wanted: int,
) -> tuple[list[Row], list[Row]]:
    """Rows of ``hardest.csv`` and ``hardest_runs.csv``: at most ``wanted`` reviews that some run gets wrong.

    ``reviews`` are the rows of ``errors.csv``, the hardest first. ``cut_from`` and ``cut_to`` say which characters of
    the text the model does not read. ``new_label`` is empty: whoever judges the label anew writes a class there.
    """
    place = {int(example): row for row, example in enumerate(tokens.example_id)}
    rows: list[Row] = []
    of_runs: list[Row] = []
    for rank, review in enumerate((review for review in reviews if review["wrong"]), 1):
        if rank > wanted:
            break
        example = int(str(review["example_id"]))
        row = place[example]
        (text,) = corpus.texts_of(np.array([example]))
        cut = reader.cut(text, tokens.input_ids[row, : tokens.length[row]])
        found: Row = {"model": review["model"], "rank": rank, "example_id": example, "text_sha256": text_hash(text)}
        found |= {name: review[name] for name in ("label", "runs", "wrong", "mean_margin", "tokens")}
        found |= _by_batch_size(runs, row, int(tokens.label[row]))
        found |= {"cut_from": cut.start, "cut_to": cut.end, "text": text, "cut": text[cut.start : cut.end]}
        rows.append(found | {"new_label": ""})
        of_runs += [_verdict(review["model"], example, run, row, tokens) for run in runs]
    return rows, of_runs


def _by_batch_size(runs: Sequence[RunVerdicts], row: int, label: int) -> Row:
    """``wrong_at_64`` and ``runs_at_64`` of every target batch size."""
    counts: dict[str, int] = {}
    for run in runs:
        counts.setdefault(f"wrong_at_{run.cell.batch}", 0)
        counts.setdefault(f"runs_at_{run.cell.batch}", 0)
        counts[f"wrong_at_{run.cell.batch}"] += int(run.prediction[row] != label)
        counts[f"runs_at_{run.cell.batch}"] += 1
    return dict(counts)


def _verdict(model: object, example: int, run: RunVerdicts, row: int, tokens: Tokens) -> Row:
    cell, prediction = run.cell, int(run.prediction[row])
    place: Row = {"model": model, "example_id": example, "run": cell.run, "target_batch_size": cell.batch}
    place |= {"lr_policy": cell.policy, "budget": cell.budget, "seed": cell.seed}
    said: Row = {"prediction": tokens.classes[prediction], "right": prediction == tokens.label[row]}
    return place | said | {"margin": float(run.margin[row])}
