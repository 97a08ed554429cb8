"""Calibration of a study's runs: two kinds of figures, a table and what it says."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from batchscope.errors import counted
from batchscope.report.catalogue import suffix
from batchscope.report.findings import read_csv
from batchscope.report.pictures import Picture, embedded
from batchscope.report.spec import FiguresSpec, ReportSpec
from batchscope.report.style import INK, MUTED, PAPER, batch_colours, frame, policy_key, policy_marks
from batchscope.report.table import Scope, Table

QUANTITIES = {"ece": "calibration error", "nll": "negative log-likelihood, nats", "temperature": "fitted temperature"}


class CalibrationSection(NamedTuple):
    """What the page shows of the calibration."""

    figure: Picture
    diagrams: list[tuple[str, Picture]]
    """Model, and budget where there are several → its reliability diagrams."""
    sentence: str
    table: Table


def calibration_figures(spec: FiguresSpec, tables: Path) -> dict[str, Figure]:
    """Name → figure."""
    runs, diagrams = (read_csv(tables, name) for name in ("calibration", "reliability"))
    drawn = {"calibration": calibration_figure(spec, runs)}
    for title, model, budget in rows_of(spec):
        part = spec.of_budget(budget)
        drawn[f"reliability_{model}{suffix(spec, budget)}"] = reliability_figure(part, diagrams, model, title)
    return drawn


def rows_of(spec: FiguresSpec) -> list[tuple[str, str, str]]:
    """Title, model and budget of every model under every budget; one budget alone is not named."""
    return [
        (f"{model}, {budget}" if spec.several_budgets else model, model, budget)
        for model in spec.model_names
        for budget in spec.budget_names
    ]


def calibration_section(spec: ReportSpec, study_folder: Path) -> CalibrationSection:
    """Figures, sentence and table of the page. Raises FileNotFoundError if a file is missing."""
    runs, figures = read_csv(study_folder / "tables", "calibration"), study_folder / "figures"
    diagrams = [
        (title, embedded(figures, f"reliability_{model}{suffix(spec, budget)}"))
        for title, model, budget in rows_of(spec)
    ]
    table = calibration_table(spec, runs)
    return CalibrationSection(embedded(figures, "calibration"), diagrams, calibration_in_words(runs), table)


def calibration_in_words(runs: pd.DataFrame) -> str:
    """How many runs are off by more than chance, in which direction, and what one temperature changes."""
    many = len(runs)
    off = int((runs.ece > runs.ece_by_chance_high).sum())
    over = int((runs.temperature > 1).sum())
    better = int((runs.scaled_nll < runs.nll).sum())
    low, high = runs.temperature.min(), runs.temperature.max()
    return (
        f"The calibration error of {off} of {counted(many, 'run')} is larger than chance gives a calibrated model on "
        f"as many reviews. The temperatures fitted on validation lie between {low:.2f} and {high:.2f}: {over} of "
        f"{many} runs are overconfident (above 1). Dividing the logits by the temperature lowers the test negative "
        f"log-likelihood of {better} of {many}; it changes no prediction."
    )


def calibration_table(spec: FiguresSpec, runs: pd.DataFrame) -> Table:
    """Means over seeds of every cell: before and after the temperature."""
    columns = ["model", "LR policy", "#batch size", "#ECE", "#by chance, at most", "#NLL", "#Brier", "#reliability"]
    columns += ["#resolution", "#temperature", "#ECE, scaled", "#NLL, scaled"]
    shown = ("ece", "ece_by_chance_high", "nll", "brier", "reliability", "resolution", "temperature")
    rows: list[list[str]] = []
    about: list[Scope] = []
    for title, model, budget in rows_of(spec):
        part = spec.of_budget(budget)
        for policy in part.policy_names:
            for batch in part.batch_sizes:
                about.append({"model": [model], "policy": [policy], "budget": [budget], "batch": [str(batch)]})
                means = runs_of(part, runs, model, policy, batch)[[*shown, "scaled_ece", "scaled_nll"]].mean()
                rows.append([title, policy, f"{batch:,}", *(f"{value:.4f}" for value in means)])
    note = "Test reviews, best checkpoint"
    note += ", mean over seeds. " if len(spec.seeds) > 1 else ". "
    note += "ECE: expected calibration error over bins of equal mass; by chance, at most: the 97.5% quantile of what a "
    note += (
        "calibrated model with these probabilities would show. Brier score = reliability − resolution + uncertainty "
    )
    note += "+ what binning adds; lower reliability and higher resolution are better. Scaled: logits divided by the "
    note += "temperature with the best likelihood on validation."
    return Table(columns, rows, note, about)


def calibration_figure(spec: FiguresSpec, runs: pd.DataFrame) -> Figure:
    """Calibration error, likelihood and temperature against the target batch size; a row per model and budget."""
    shown, marks, colours = rows_of(spec), policy_marks(spec), batch_colours(spec)
    sizes = sorted(colours)
    figure = Figure(figsize=(10.2, 0.9 + 2.5 * len(shown)))
    axes = figure.subplots(len(shown), len(QUANTITIES), squeeze=False, sharex=True)
    for row, (title, model, budget) in zip(axes, shown, strict=True):
        part = spec.of_budget(budget)
        for axis, (column, label) in zip(row, QUANTITIES.items(), strict=True):
            for rank, (policy, mark) in enumerate(marks.items()):
                shift = (rank - (len(marks) - 1) / 2) * 0.2
                means = []
                for place, size in enumerate(sizes):
                    found = runs_of(part, runs, model, policy, size)
                    means.append((place + shift, found[column].mean()))
                    _cell(axis, found, column, place + shift, colours[size])
                    look: dict[str, Any] = {"markersize": 6.5, "markeredgewidth": 1.4, "zorder": 4}
                    face = colours[size] if mark.filled else PAPER
                    axis.plot(*means[-1], mark.marker, color=colours[size], markerfacecolor=face, **look)
                axis.plot(*zip(*means, strict=True), color=MUTED, linewidth=1, linestyle=mark.line, zorder=3)
            axis.set_title(title if column == "ece" else "")
            axis.set_ylabel(label)
            axis.set_xticks(range(len(sizes)), [f"{size:,}" for size in sizes])
            axis.set_xlim(-0.5, len(sizes) - 0.5)
            axis.grid(axis="x", visible=False)
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
            axis.margins(y=0.12)
            if column == "temperature":
                axis.axhline(1, color=INK, linewidth=0.8, zorder=1)
    for axis in axes[-1]:
        axis.set_xlabel("target batch size")
    seeds = "Marks: mean over seeds; dots: seeds. " if len(spec.seeds) > 1 else f"Seed {spec.seeds[0]}. "
    note = f"{seeds}Crosses: after scaling by the temperature fitted on validation. Grey bars: up to here chance alone "
    note += f"takes a calibrated model on as many {spec.words[1]}. Line at temperature 1: below it underconfident, "
    note += "above it overconfident."
    frame(figure, "Calibration on test by target batch size", note, [*policy_key(marks), *_key()])
    return figure


def _cell(axis: Axes, found: pd.DataFrame, column: str, place: float, colour: str) -> None:
    """Seeds of one cell, the scaled mean, and what chance gives; its mark is drawn by the caller."""
    if column == "ece":
        axis.bar(place, found.ece_by_chance_high.mean(), width=0.17, color="#e4e6ea", zorder=1)
    if column != "temperature":
        scaled = found[f"scaled_{column}"].mean()
        axis.plot(place, scaled, "x", color=INK, markersize=4.5, markeredgewidth=1.1, zorder=5)
    if len(found) > 1:
        axis.plot([place] * len(found), found[column], "o", color=colour, markersize=2.4, zorder=2)


def _key() -> Sequence[Artist]:
    look: dict[str, Any] = {"linestyle": "none", "marker": "x", "color": INK, "markersize": 5}
    return [Line2D([], [], label="after temperature scaling", **look)]


def reliability_figure(spec: FiguresSpec, diagrams: pd.DataFrame, model: str, title: str) -> Figure:
    """Confidence and accuracy of a model's predictions, ranked by confidence: a row per policy, a column per size."""
    colours, policies = batch_colours(spec), spec.policy_names
    sizes = sorted(colours)
    figure = Figure(figsize=(max(5.2, 0.9 + 2.5 * len(sizes)), 1.0 + 2.3 * len(policies)))
    axes = figure.subplots(len(policies), len(sizes), squeeze=False, sharex=True, sharey=True)
    for row, policy in zip(axes, policies, strict=True):
        for axis, size in zip(row, sizes, strict=True):
            bins = runs_of(spec, diagrams, model, policy, size).drop_duplicates(["run", "bin"])
            ends = np.cumsum(bins.predictions) / bins.predictions.sum()
            starts = np.concatenate([[0.0], ends[:-1]])
            middle = (starts + ends) / 2
            axis.vlines(middle, bins.low, bins.high, color=colours[size], linewidth=1.2, alpha=0.7, zorder=2)
            axis.plot(middle, bins.accuracy, "o", color=colours[size], markersize=4, zorder=3)
            axis.stairs(bins.mean_confidence, [0.0, *ends], color=INK, linewidth=1.2, baseline=None, zorder=4)
            axis.set_title(f"{policy} LR policy, batch size {size:,}", fontsize=8.5)
    for axis in axes[-1]:
        axis.set_xlabel("predictions, least confident first")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))
        axis.set_xlim(0, 1)
    for row in axes:
        row[0].set_ylabel("share correct")
        row[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
    seeds = f"{counted(len(spec.seeds), 'seed')} together" if len(spec.seeds) > 1 else f"seed {spec.seeds[0]}"
    note = f"Test {spec.words[1]}, {seeds}, in bins of equal mass. Bars: 95% Wilson interval at the number of "
    note += (
        f"{spec.words[1]} of one seed. The area between line and dots is the calibration error; dots below the line "
    )
    note += "are overconfident."
    frame(figure, f"{title}: reliability by target batch size", note, _diagram_key())
    return figure


def _diagram_key() -> list[Artist]:
    return [
        Line2D([], [], color=INK, linewidth=1.4, label="mean confidence"),
        Line2D([], [], color=MUTED, marker="o", markersize=5, linestyle="none", label="accuracy"),
    ]


def runs_of(spec: FiguresSpec, runs: pd.DataFrame, model: str, policy: str, batch: int) -> pd.DataFrame:
    """The rows of the runs that a cell reads, over its seeds."""
    wanted = [cell.run for cell in spec.cells if (cell.model, cell.policy, cell.batch) == (model, policy, batch)]
    return runs[runs.run.isin(wanted)]
