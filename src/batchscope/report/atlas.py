"""The section of the page on the errors: figures, what they say, and the hardest reviews in full."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from markupsafe import Markup

from batchscope.errors import counted
from batchscope.report.calibration import rows_of
from batchscope.report.catalogue import suffix
from batchscope.report.embedded_data import json_island
from batchscope.report.embedding import CAUTION, atlas_data
from batchscope.report.findings import read_csv
from batchscope.report.numbers import accuracy, percent
from batchscope.report.pictures import Picture, embedded
from batchscope.report.spec import ErrorsShown, ReportSpec
from batchscope.report.table import Scope, Table
from batchscope.wording import Wording

MOST_SHOWN = 40
"""Hardest reviews of a model that the page holds in full; ``tables/hardest.csv`` has all of them."""


class ShownFigure(NamedTuple):
    """A figure of the section."""

    picture: Picture
    alternative: str
    caption: str


class HardReview(NamedTuple):
    """One review that many runs get wrong."""

    title: str
    label: str
    before: str
    """What the model reads, up to the cut."""
    cut: str
    """What it does not read; empty where it reads all."""
    after: str
    """What it reads after the cut."""
    by_batch_size: str
    runs: Table


class ErrorsSection(NamedTuple):
    """What the page shows of the errors."""

    sentences: list[str]
    figures: list[ShownFigure]
    counts: Table
    rejudged: Table | None
    """Accuracy as labelled and as re-judged."""
    embeddings: list[tuple[str, ShownFigure]]
    """Model, and the reviews as points."""
    island: Markup | None
    """The same points for the page's script; None where there are none."""
    hardest: list[tuple[str, str, list[HardReview]]]
    """Model, a sentence about its hardest reviews, and these."""


def errors_section(spec: ReportSpec, shown: ErrorsShown, study_folder: Path, classes: Sequence[str]) -> ErrorsSection:
    """The section of a study with these classes. Raises FileNotFoundError if a table or a figure is missing."""
    tables = study_folder / "tables"
    counts, flips = read_csv(tables, "error_counts"), read_csv(tables, "flips")
    rejudged = read_csv(tables, "label_review") if shown.label_review else None
    said = [*_counts_in_words(counts), *flips_in_words(spec, flips)]
    return ErrorsSection(
        sentences=said if rejudged is None else [*said, rejudged_in_words(rejudged)],
        figures=_figures(spec, study_folder / "figures"),
        counts=counts_table(spec, counts, shown),
        rejudged=None if rejudged is None else rejudged_table(spec, rejudged),
        embeddings=_embeddings(spec, study_folder / "figures") if shown.embedding else [],
        island=json_island("atlas", atlas_data(spec, shown, tables, classes)) if shown.embedding else None,
        hardest=_hardest(spec, shown, tables),
    )


def _figures(spec: ReportSpec, folder: Path) -> list[ShownFigure]:
    found = [
        ShownFigure(
            embedded(folder, "errors_verdicts"),
            "Share of reviews that all runs or some runs get wrong, over all runs and by target batch size",
            "Dark: wrong in every run. Light: wrong in some runs. Grey: all batch sizes and seeds of a policy.",
        ),
        ShownFigure(
            embedded(folder, "errors_flips"),
            "Reviews predicted differently by two batch sizes and by two seeds, and the ratio with its interval",
            "Two runs predict differently even if only their seeds differ. That is the yardstick for the batch size.",
        ),
    ]
    for title, model, budget in rows_of(spec):
        end = f"{model}{suffix(spec, budget)}"
        found.append(
            ShownFigure(
                embedded(folder, f"errors_margins_{end}"),
                f"{title}: share of predictions below each margin, a curve per target batch size",
                "The margin is the logit of the label minus the largest other one. Left of 0 the prediction is wrong.",
            )
        )
        found.append(
            ShownFigure(
                embedded(folder, f"errors_groups_{end}"),
                f"{title}: accuracy by class, length and truncation, a mark per target batch size",
                "Every group of reviews by itself: a batch size that is worse for long reviews alone shows here.",
            )
        )
    return found


def _embeddings(spec: ReportSpec, folder: Path) -> list[tuple[str, ShownFigure]]:
    caption = "Each point is a test review, placed by what the last layer sees of it. Neighbours are alike. "
    caption += f"{CAUTION} Rings: wrong, but close to the boundary."
    return [
        (
            model,
            ShownFigure(
                embedded(folder, f"errors_embedding_{model}"),
                f"{model}: test reviews by PCA and by t-SNE, a panel per target batch size, wrong predictions marked",
                caption,
            ),
        )
        for model in spec.model_names
    ]


def _counts_in_words(counts: pd.DataFrame) -> list[str]:
    """How much of the errors does not depend on the training."""
    together = counts[counts.target_batch_size.isna() & (counts.run_count > 1)]
    if not len(together):
        return ["The study has one run of each kind, so no review can be wrong in some runs and right in others."]
    always, sometimes = int(together.always.sum()), int(together.sometimes.sum())
    if not always + sometimes:
        return ["No run gets a test review wrong."]
    share = percent(always / (always + sometimes), 0)
    said = (
        f"Of the reviews that any run of a model and LR policy gets wrong, {share} are wrong in every run: no batch "
        "size and no seed of this study gets them right."
    )
    return [f"{said} The others are decided by the training." if sometimes else said]


def flips_in_words(spec: ReportSpec, flips: pd.DataFrame) -> list[str]:
    """The ratio of every model, LR policy and budget, or why there is none."""
    said = []
    for row in flips.itertuples():
        name = ", ".join([row.model, f"{row.lr_policy} LR policy", *([row.budget] if spec.several_budgets else [])])
        if pd.isna(row.ratio):
            said.append(f"{name}: {f'the comparison {row.reason}' if row.reason else _equal(row.between_batch_sizes)}.")
            continue
        interval = "" if pd.isna(row.low) else f" (95% interval {row.low:.2f} to {row.high:.2f})"
        said.append(
            f"{name}: two batch sizes predict {percent(row.between_batch_sizes)} of the reviews differently, two seeds "
            f"{percent(row.between_seeds)}; the ratio is {row.ratio:.2f}{interval}."
        )
    return said


def _equal(between_batch_sizes: float) -> str:
    """What stands in place of a ratio where all seeds predict the same."""
    also = "nor between batch sizes" if between_batch_sizes == 0 else "so there is no ratio"
    return f"no prediction differs between seeds, {also}"


def counts_table(spec: ReportSpec, counts: pd.DataFrame, shown: ErrorsShown) -> Table:
    """Wrong predictions and verdicts of every cell."""
    columns = ["model", "LR policy", "#batch size", "#predictions", "#wrong", "#of them near the boundary"]
    columns += [Wording(*spec.words).of("#reviews always wrong"), "#sometimes", "#never"]
    rows, scopes = [], []
    for row in counts.itertuples():
        size = "all" if pd.isna(row.target_batch_size) else f"{int(row.target_batch_size):,}"
        name = f"{row.model}, {row.budget}" if spec.several_budgets else row.model
        numbers = (
            row.run_count * row.examples,
            row.wrong,
            row.wrong_near_boundary,
            row.always,
            row.sometimes,
            row.never,
        )
        rows.append([name, row.lr_policy, size, *(f"{int(value):,}" for value in numbers)])
        scopes.append(_scope(row.model, row.lr_policy, row.budget, row.target_batch_size))
    note = (
        "Best checkpoints on the test reviews, the seeds together. Near the boundary: the logit of the label is less "
    )
    note += f"than {shown.boundary:g} below the largest one."
    return Table(columns, rows, note, scopes)


def _scope(model: str, policy: str, budget: str, batch: float) -> Scope:
    """What a row is about; a row of all batch sizes is about none of them."""
    found = {"model": [model], "policy": [policy], "budget": [budget]}
    return found if pd.isna(batch) else found | {"batch": [str(int(batch))]}


# ------------------------------------------------------------------------------------------------- re-judged labels


def rejudged_in_words(rows: pd.DataFrame) -> str:
    """How many labels people changed, and whether the order of the batch sizes changes with them."""
    first = rows.iloc[0]
    said = f"Of {counted(int(first.file_rows), 'review')} whose label people judged anew, {int(first.judged):,} are "
    said += "test reviews of this study"
    said += f" ({int(first.unmatched):,} match no review)." if first.unmatched else "."
    if not first.judged:
        return f"{said} So the accuracies stay as they are."
    said += f" They changed {counted(int(first.changed), 'label')} and left {int(first.undecided):,} undecided, which "
    said += "the re-judged accuracy leaves out."
    groups = rows.groupby(["model", "lr_policy", "budget"], sort=False)
    other = sum(bool((group["rank"] != group.rank_rejudged).any()) for _, group in groups)
    if rows.target_batch_size.nunique() < 2:
        return said
    many = groups.ngroups
    if not other:
        return f"{said} The order of the batch sizes by mean accuracy stays the same."
    return f"{said} The order of the batch sizes by mean accuracy changes in {other} of {counted(many, 'comparison')}."


def rejudged_table(spec: ReportSpec, rows: pd.DataFrame) -> Table:
    """Accuracies and ranks of every cell."""
    columns = ["model", "LR policy", "#batch size", "#as labelled", "#as labelled, decided reviews"]
    columns += ["#as re-judged", "#rank as labelled", "#rank as re-judged"]
    body, scopes = [], []
    for row in rows.to_dict("records"):
        name = f"{row['model']}, {row['budget']}" if spec.several_budgets else row["model"]
        shares = [row[f"accuracy{end}"] for end in ("", "_decided", "_rejudged")]
        shown = ["–" if pd.isna(share) else accuracy(share) for share in shares]
        ranks = [str(int(row["rank"])), str(int(row["rank_rejudged"]))]
        body.append([name, row["lr_policy"], f"{int(row['target_batch_size']):,}", *shown, *ranks])
        scopes.append(_scope(*(row[key] for key in ("model", "lr_policy", "budget", "target_batch_size"))))
    note = "Best checkpoints on the test reviews, all seeds. A label is re-judged if more than half of its votes are "
    note += "for one class. Where only questioned labels were judged, the re-judged accuracy may be too high."
    return Table(columns, body, note, scopes)


# ------------------------------------------------------------------------------------------------ the hardest reviews


def _hardest(spec: ReportSpec, shown: ErrorsShown, tables: Path) -> list[tuple[str, str, list[HardReview]]]:
    reviews, runs = (
        pd.read_csv(tables / f"{name}.csv", dtype=str, keep_default_na=False) for name in ("hardest", "hardest_runs")
    )
    found = []
    for model in spec.model_names:
        mine = reviews[reviews.model == model]
        of_model = runs[runs.model == model]
        hard = [_review(row, of_model) for row in mine.head(MOST_SHOWN).to_dict("records")]
        found.append((model, _hardest_in_words(len(mine), shown.hardest), hard))
    return found


def _hardest_in_words(there: int, wanted: int) -> str:
    if not there:
        return "No run gets a test review wrong."
    fewer = f" No more than {counted(there, 'review')} are wrong in any run." if there < wanted else ""
    more = f" Of {there:,} in tables/hardest.csv, the page shows the first {MOST_SHOWN}." if there > MOST_SHOWN else ""
    return f"Those that most runs get wrong, by the lowest mean margin.{fewer}{more}"


def _review(row: dict[str, str], runs: pd.DataFrame) -> HardReview:
    mine = runs[runs.example_id == row["example_id"]]
    start, end, text = int(row["cut_from"]), int(row["cut_to"]), row["text"]
    sizes = [name.removeprefix("wrong_at_") for name in row if name.startswith("wrong_at_") and row[name]]
    told = [f"{int(size):,}: {row[f'wrong_at_{size}']} of {row[f'runs_at_{size}']}" for size in sorted(sizes, key=int)]
    verdicts = [
        [one["target_batch_size"], one["lr_policy"], one["budget"], one["seed"], one["prediction"]]
        + [f"{float(one['margin']):+.2f}".replace("-", "\N{MINUS SIGN}")]
        for one in mine.to_dict("records")
    ]
    columns = ["#batch size", "LR policy", "budget", "#seed", "prediction", "#margin"]
    return HardReview(
        title=f"{int(row['rank'])}. Wrong in {row['wrong']} of {counted(int(row['runs']), 'run')}",
        label=row["label"],
        before=text[:start],
        cut=text[start:end],
        after=text[end:],
        by_batch_size="; ".join(told),
        runs=Table(columns, verdicts),
    )
