"""The page's section on the training examples: which are easy, ambiguous or hard, and what decides it."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from batchscope.errors import counted
from batchscope.report.calibration import rows_of
from batchscope.report.cartography_figures import Tables, agreement_message, shares
from batchscope.report.catalogue import suffix
from batchscope.report.numbers import MINUS, percent
from batchscope.report.pictures import Picture, embedded
from batchscope.report.spec import FiguresSpec, ReportSpec
from batchscope.report.table import Scope, Table
from batchscope.statistics.cartography import REGIONS

NOT_MEASURED = (
    "Which training examples are easy, ambiguous or hard is not measured. It needs the checkpoint of every epoch: set "
    "`keep: all` and `insight.cartography.enabled: true` in the config, with two epochs or more."
)
EVERY_EXAMPLE = (
    "Where a training example lies says how the model learns it. Top left, easy: early and for good. Bottom left, "
    "hard: never; their labels are worth a second look. Right, ambiguous: the model changes its mind. Compare the "
    "panels of a row: does a larger batch move the crowd?"
)
TWO_RUNS = (
    "Two trainings never learn every example alike. Circles show how alike two seeds are; that is the yardstick. If "
    "squares lie left of circles, another batch size changes the order of the examples more than another seed does."
)


class ShownMap(NamedTuple):
    """A figure of the section."""

    picture: Picture
    alternative: str
    caption: str


class CartographySection(NamedTuple):
    """What the page shows of the training examples; a sentence alone where they are not mapped."""

    sentences: list[str]
    figures: list[ShownMap]
    compared: Table | None
    """Batch sizes against seeds."""
    table: Table | None
    """Shares of the regions."""


def cartography_section(spec: ReportSpec, study_folder: Path) -> CartographySection:
    """The section of a study. Raises FileNotFoundError if a table or a figure is missing."""
    if not spec.cartography:
        return CartographySection([NOT_MEASURED], [], None, None)
    tables, figures = Tables.read(study_folder / "tables"), study_folder / "figures"
    shown = [
        ShownMap(
            embedded(figures, f"cartography_map_{model}{suffix(spec, budget)}"),
            f"{title}: training examples by variability and confidence, a panel per target batch size",
            EVERY_EXAMPLE,
        )
        for title, model, budget in rows_of(spec)
    ]
    alternative = "Rank correlations of the training examples between two batch sizes and between two seeds"
    shown.append(ShownMap(embedded(figures, "cartography_agreement"), alternative, TWO_RUNS))
    said = [*_measured_in_words(spec, tables.regions), *_not_compared(spec, tables.ratios)]
    compared = comparison_table(spec, tables.ratios)
    if compared:
        said.insert(0, f"{agreement_message(tables.ratios)}.")
    return CartographySection(said, shown, compared, regions_table(spec, tables.regions))


def _place(spec: FiguresSpec, row: "pd.Series[object]", policy: bool = True) -> str:
    parts = [str(row.model), *([f"{row.lr_policy} LR policy"] if policy else [])]
    return ", ".join([*parts, *([str(row.budget)] if spec.several_budgets else [])])


def _measured_in_words(spec: FiguresSpec, regions: pd.DataFrame) -> list[str]:
    """What was measured of every model, and which examples are hard in all of its runs."""
    said = []
    for _, rows in regions[regions.target_batch_size.isna()].groupby(["model", "budget"], sort=False):
        row, name = rows.iloc[0], _place(spec, rows.iloc[0], policy=False)
        if row.reason:
            said.append(f"{name}: no map, because {row.reason}. Give every run two epochs or more.")
            continue
        of_all = f" of up to {int(row.longest)}" if row.longest > row.epochs else ""
        fewer = f" ({int(row.asked):,} were asked for, there are no more)" if row.examples < row.asked else ""
        said.append(
            f"{name}: {int(row.examples):,} training examples{fewer} at the ends of {int(row.epochs)}{of_all} epochs, "
            f"where all runs have seen equally many samples: {int(row.samples):,} at the last."
        )
        for one in rows[rows.run_count > 1].to_dict("records"):
            first = (
                ": no batch size and no seed learns these, so look at their labels first" if one["hard_in_all"] else ""
            )
            said.append(
                f"{_place(spec, pd.Series(one))}: {counted(int(one['easy_in_all']), 'example')} are easy in all "
                f"{counted(int(one['run_count']), 'run')}, {int(one['hard_in_all']):,} are hard in all of them{first}."
            )
    return said


def _not_compared(spec: FiguresSpec, ratios: pd.DataFrame) -> list[str]:
    """Why a model, LR policy and budget has no comparison."""
    return [
        f"{_place(spec, row)}: the comparison of batch sizes with seeds {row.reason}."
        for _, row in ratios[(ratios.what == "region") & (ratios.reason != "")].iterrows()
    ]


def comparison_table(spec: FiguresSpec, ratios: pd.DataFrame) -> Table | None:
    """Batch sizes against seeds; None where there is nothing to compare."""
    rows = []
    for row in ratios.dropna(subset=["between_seeds"]).to_dict("records"):
        ends = [row["between_batch_sizes"], row["between_seeds"]]
        if row["what"] == "region":
            shown, what = [percent(share) for share in ends], "share that changes the region"
        else:
            shown, what = [f"{1 - one:.3f}".replace("-", MINUS) for one in ends], f"rank correlation of {row['what']}"
        name = f"{row['model']}, {row['budget']}" if spec.several_budgets else row["model"]
        rows.append([name, row["lr_policy"], f"{row['run_count']:,}", what, *shown, _ratio(row)])
    if not rows:
        return None
    columns = ["model", "LR policy", "#runs", "of the training examples", "#between batch sizes", "#between seeds"]
    note = (
        "Means over all pairs of runs that differ in the batch size or in the seed alone. Ratio: the difference (1 − "
    )
    note += (
        "correlation, or the share) between batch sizes over that between seeds, with its 95% interval over resampled "
    )
    note += "seeds and examples. Above 1 the batch size changes more than the seed does."
    return Table([*columns, "#ratio"], rows, note)


def _ratio(row: Mapping[Hashable, Any]) -> str:
    if pd.isna(row["ratio"]):
        return "–"
    interval = "" if pd.isna(row["low"]) else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['ratio']:.2f}{interval}"


def regions_table(spec: FiguresSpec, regions: pd.DataFrame) -> Table | None:
    """Shares of the regions of every cell; None where nothing could be mapped."""
    rows, scopes = [], []
    for row in regions.dropna(subset=list(REGIONS)).to_dict("records"):
        size = row["target_batch_size"]
        name = f"{row['model']}, {row['budget']}" if spec.several_budgets else row["model"]
        told = [percent(share) for share in shares(pd.Series(row)).values()]
        in_all = [f"{int(row[f'{region}_in_all']):,}" for region in REGIONS]
        shown = "all" if np.isnan(size) else f"{int(size):,}"
        rows.append([name, row["lr_policy"], shown, f"{int(row['run_count'])}", *told, *in_all])
        scope: Scope = {"model": [row["model"]], "policy": [row["lr_policy"]], "budget": [row["budget"]]}
        scopes.append(scope if np.isnan(size) else {**scope, "batch": [str(int(size))]})
    if not rows:
        return None
    columns = ["model", "LR policy", "#batch size", "#runs", *(f"#{region}" for region in REGIONS)]
    columns += [f"#{region} in every run" for region in REGIONS]
    note = "Shares of the training examples, the runs of a row together; on the right numbers of examples. Easy: the "
    note += "mean probability of the label over the epochs lies more than one standard deviation above a half; hard: "
    note += "more than one below; ambiguous: between."
    return Table(columns, rows, note, scopes)
