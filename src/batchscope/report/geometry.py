"""The page's section on the loss around a study's runs: what it says of sharp minima, in words and tables."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from batchscope.errors import counted
from batchscope.report.calibration import rows_of
from batchscope.report.catalogue import suffix
from batchscope.report.geometry_figures import OTHERS, SHARPNESS, Tables, part_of
from batchscope.report.numbers import MINUS, listed
from batchscope.report.pictures import Picture, embedded
from batchscope.report.spec import FiguresSpec, ReportSpec
from batchscope.report.table import Table

ADDS = (
    "A correlation near −1 says: the sharper a run's minimum, the lower its accuracy. What counts is the filled mark. "
    "A run that moved further, with a larger sum of learning rates, has another sharpness and another accuracy. The "
    "filled mark asks what sharpness still says among runs that moved equally far."
)
EVERY_RUN = (
    "Above: how sharp a run ends depends on how far the learning rates took it. Below: are sharper runs less accurate? "
    "Look within one colour: there the batch size is the same."
)
HILL = (
    "If the loss stays low all the way, both trainings ended in the same valley, whatever their batch size. A hill "
    "that is as high between two seeds as between two batch sizes says nothing of the batch size."
)
FEATURES = (
    "Marks on the left compare two batch sizes, marks on the right two seeds. If both sides are equally high, a larger "
    "batch changes the features no more than another seed would."
)


class Shown(NamedTuple):
    """A figure on the page."""

    title: str
    """What it shows, as a sentence."""
    picture: Picture
    caption: str
    """For a reader who skipped the methods."""


def geometry_section(spec: ReportSpec, study_folder: Path) -> dict[str, object] | None:
    """What the page shows; None in a study that does not measure it. Raises FileNotFoundError if a file is missing."""
    if not spec.geometry:
        return None
    tables = Tables.read(study_folder / "tables")
    return {
        "headline": headline(tables.correlations),
        "sentences": sentences(spec, tables),
        "figures": _figures(spec, study_folder / "figures"),
        "table": cells_table(spec, tables.runs),
        "correlations": correlations_table(spec, tables.correlations),
    }


def headline(table: pd.DataFrame) -> str:
    """The answer to "are sharp minima the reason?" in one sentence, from the intervals at equal ΣLR."""
    told = _of_sharpness(table)
    if not len(told):
        return "Whether sharpness says anything of accuracy cannot be told: there are too few runs."
    sure = told[_sure(told, "partial")]
    if not len(sure):
        before = int(_sure(told, "accuracy").sum())
        of_all = f"in {before} of {counted(len(told), 'rank correlation')}"
        said = f"Sharpness goes with test accuracy {of_all}" if before else "Sharpness is not shown to go with accuracy"
        return f"{said}; at an equal sum of learning rates none is left that differs from 0."
    lower = int((sure.partial < 0).sum())
    ways = [f"lower accuracy in {lower}"] * (lower > 0) + [f"higher accuracy in {len(sure) - lower}"] * (
        lower < len(sure)
    )
    return (
        f"At an equal sum of learning rates, sharper goes with {listed(ways)} of "
        f"{counted(len(told), 'rank correlation')}; about one in twenty would by chance."
    )


def _of_sharpness(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the best checkpoints' sharpness that have an interval at equal ΣLR."""
    if "partial_low" not in table:
        return table.iloc[:0]
    return table[(table.checkpoint == "best") & table.measure.isin(SHARPNESS) & table.partial_low.notna()]


def _sure(table: pd.DataFrame, name: str) -> "pd.Series[bool]":
    """Per row whether the interval excludes 0."""
    return (table[f"{name}_low"] > 0) | (table[f"{name}_high"] < 0)


def sentences(spec: FiguresSpec, tables: Tables) -> list[str]:
    """What the intervals rest on, whether batch sizes lie further apart than seeds, and what is missing."""
    found = []
    for title, model, budget in rows_of(spec):
        part = part_of(tables.correlations, model, budget)
        row = part[(part.checkpoint == "best") & (part.measure == "lr_sum")].iloc[0]
        rests = (
            f"{title}: correlations over {counted(int(row.run_count), 'run')} of {counted(int(row.cell_count), 'cell')}"
        )
        few = row.get("reason")
        found.append(f"{rests}." if few is None or pd.isna(few) else f"{title}: {few}.")
    found += [
        sentence for sentence in (_ratio_in_words(spec, tables.ratios), _missing_in_words(tables.runs)) if sentence
    ]
    return found


def _ratio_in_words(spec: FiguresSpec, ratios: pd.DataFrame) -> str:
    """The barrier between batch sizes and between seeds, over the groups that have both."""
    if "ratio" not in ratios:
        return ""
    parts = []
    for row in ratios[ratios.what == "barrier"].dropna(subset=["between_seeds"]).to_dict("records"):
        place = [row["model"], row["lr_policy"], *([row["budget"]] if spec.several_budgets else [])]
        parts.append(f"{row['between_batch_sizes']:.3g} and {row['between_seeds']:.3g} ({', '.join(place)})")
    said = "Mean barrier of the training loss between two batch sizes and between two seeds, in nats: "
    return f"{said}{'; '.join(parts)}." if parts else ""


def _missing_in_words(runs: pd.DataFrame) -> str:
    """What could not be measured, each reason once with the number of checkpoints."""
    reasons = []
    for column in ("hessian_reason", "distance_reason"):
        if column in runs:
            for reason, group in runs.dropna(subset=[column]).groupby(column, sort=False):
                reasons.append(f"{reason} ({counted(len(group), 'checkpoint')})")
    fewer = runs[runs.examples < runs.asked]
    if len(fewer):
        there, asked = int(fewer.examples.min()), int(fewer.asked.max())
        reasons.append(f"{there:,} training examples were measured, {asked:,} were asked for: there are no more")
    return f"Not measured, or with less than asked for: {'; '.join(reasons)}." if reasons else ""


def _figures(spec: ReportSpec, figures: Path) -> list[Shown]:
    def shown(title: str, name: str, caption: str) -> Shown:
        return Shown(title, embedded(figures, name), caption)

    found = [shown("Sharpness and accuracy, before and after the learning rates", "geometry_correlations", ADDS)]
    for title, model, budget in rows_of(spec):
        end = suffix(spec, budget)
        found.append(shown(f"{title}: every run's sharpness", f"geometry_sharpness_{model}{end}", EVERY_RUN))
        found.append(shown(f"{title}: is there a hill between two runs?", f"geometry_paths_{model}{end}", HILL))
    question = "Does the batch size change the features more than the seed does?"
    return [*found, shown(question, "geometry_cka", FEATURES)]


def cells_table(spec: FiguresSpec, runs: pd.DataFrame) -> Table:
    """Means over seeds of every cell's best checkpoints."""
    names = {"loss": "#loss", "average": "#average", "one_step": "#one step", "adaptive": "#adaptive"}
    names |= {"adaptive_normalised": "#adaptive, normalised", "eigenvalue_1": "#largest eigenvalue"}
    names |= {"gradient_norm": "#gradient norm", "distance": "#distance", "lr_sum": "#ΣLR"}
    best = runs[runs.checkpoint == "best"]
    rows = []
    for title, model, budget in rows_of(spec):
        part = spec.of_budget(budget)
        for policy in part.policy_names:
            for batch in part.batch_sizes:
                place = (model, policy, batch)
                of_cell = [c.run for c in part.cells if (c.model, c.policy, c.batch) == place]
                mine = best[best.run.isin(of_cell)]
                means = [mine[name].mean() if name in mine else np.nan for name in names]
                accuracy = f"{mine.test_correct.sum() / mine.test_examples.sum():.4f}"
                rows.append([title, policy, f"{batch:,}", *map(_number, means), accuracy])
    note = "Best checkpoint, mean over seeds, in nats. Average: Gaussian noise on the weights. One step: along the "
    note += "gradient. Adaptive: the worst of a few steps, each weight in units of its size. Normalised: for logits of "
    note += "equal size. Distance: of the weights from where the training began. ΣLR: the sum of the learning rates up "
    note += "to the checkpoint. A dash: not measured."
    return Table(["model", "LR policy", "#batch size", *names.values(), "#test accuracy"], rows, note)


def correlations_table(spec: FiguresSpec, table: pd.DataFrame) -> Table | None:
    """Every rank correlation with its interval; None where no correlation could be computed."""
    if "partial" not in table or not table.accuracy.notna().any():
        return None
    names = {"lr_sum": "sum of the learning rates", **SHARPNESS, **OTHERS}
    rows = []
    for row in table.dropna(subset=["accuracy"]).to_dict("records"):
        title = f"{row['model']}, {row['budget']}" if spec.several_budgets else row["model"]
        shown = [_between(row, "accuracy"), _between(row, "partial"), _signed(row["lr_sum"])]
        rows.append([title, row["checkpoint"], names[row["measure"]], f"{row['run_count']:,}", *shown])
    columns = ["model", "checkpoint", "measure", "#runs", "#with test accuracy", "#at equal ΣLR", "#with ΣLR"]
    note = (
        "Spearman's rank correlation over runs, with 95% percentile intervals over resampled runs. At equal ΣLR: the "
    )
    note += "partial rank correlation given the sum of the learning rates."
    return Table(columns, rows, note)


def _between(row: dict[Any, Any], name: str) -> str:
    if np.isnan(row[name]):
        return "–"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return _signed(row[name]) + ("" if np.isnan(low) else f" [{_signed(low)}, {_signed(high)}]")


def _signed(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:+.2f}".replace("-", MINUS)


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3g}".replace("-", MINUS)
