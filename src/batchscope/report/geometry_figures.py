"""Figures of the loss around a study's runs and between them."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from batchscope.errors import counted
from batchscope.report.calibration import rows_of
from batchscope.report.catalogue import suffix
from batchscope.report.findings import read_csv
from batchscope.report.maps import sentence_figure
from batchscope.report.numbers import MINUS
from batchscope.report.spec import FiguresSpec
from batchscope.report.style import (
    INK,
    MUTED,
    PAPER,
    RULE,
    batch_colours,
    batch_key,
    frame,
    plain_log,
    policy_key,
    policy_marks,
)
from batchscope.statistics.geometry import excludes_zero

SHARPNESS = {
    "average": "average-case sharpness",
    "one_step": "one-step sharpness",
    "adaptive": "adaptive sharpness",
    "average_normalised": "average-case, logits normalised",
    "one_step_normalised": "one-step, logits normalised",
    "adaptive_normalised": "adaptive, logits normalised",
    "eigenvalue_1": "largest Hessian eigenvalue",
}
"""Measures of sharpness → their names."""
OTHERS = {"gradient_norm": "norm of the gradient", "distance": "distance from the start"}
DRAWN = {
    "average": "average-case sharpness, nats",
    "adaptive": "adaptive sharpness, nats",
    "adaptive_normalised": "adaptive, logits normalised, nats",
    "eigenvalue_1": "largest Hessian eigenvalue",
}
LOG_FROM_RATIO = 10
TABLES = ("geometry", "geometry_pairs", "geometry_paths", "geometry_ratio", "geometry_correlations")


class Tables(NamedTuple):
    """The tables of the stage."""

    runs: pd.DataFrame
    """One row per run and checkpoint."""
    pairs: pd.DataFrame
    paths: pd.DataFrame
    ratios: pd.DataFrame
    correlations: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> "Tables":
        """Raises FileNotFoundError if one is missing."""
        return cls(*(read_csv(folder, name) for name in TABLES))


def part_of(table: pd.DataFrame, model: str, budget: str) -> pd.DataFrame:
    """The rows of one model and budget; none where the table is empty."""
    return table[(table.model == model) & (table.budget == budget)] if "budget" in table else table


def geometry_figures(spec: FiguresSpec, folder: Path) -> dict[str, Figure]:
    """Name → figure, from the tables in a folder. Raises FileNotFoundError if one is missing."""
    tables = Tables.read(folder)
    drawn = {
        "geometry_correlations": correlations_figure(spec, tables.correlations),
        "geometry_cka": cka_figure(spec, tables.pairs),
    }
    for title, model, budget in rows_of(spec):
        part, end = spec.of_budget(budget), suffix(spec, budget)
        drawn[f"geometry_sharpness_{model}{end}"] = sharpness_figure(part, part_of(tables.runs, model, budget), title)
        drawn[f"geometry_paths_{model}{end}"] = paths_figure(part, part_of(tables.paths, model, budget), title)
    return drawn


# --------------------------------------------------------------------------------------------------- the figures


def sharpness_figure(spec: FiguresSpec, runs: pd.DataFrame, title: str) -> Figure:
    """Sharpness against ΣLR, and test accuracy against sharpness; a mark per run, its best checkpoint."""
    best = runs[runs.checkpoint == "best"]
    shown = {name: label for name, label in DRAWN.items() if name in best and best[name].notna().any()}
    colours, marks = batch_colours(spec), policy_marks(spec)
    figure = Figure(figsize=(1.2 + 2.7 * len(shown), 6.0))
    axes = figure.subplots(2, len(shown), squeeze=False)
    for (above, below), (name, label) in zip(axes.T, shown.items(), strict=True):
        for run in best.dropna(subset=[name]).to_dict("records"):
            colour, mark = colours[run["target_batch_size"]], marks[run["lr_policy"]]
            face = colour if mark.filled else PAPER
            look: dict[str, Any] = {"color": colour, "markerfacecolor": face, "markersize": 6, "linestyle": "none"}
            above.plot(run["lr_sum"], run[name], mark.marker, **look)
            below.plot(run[name], run["test_accuracy"], mark.marker, **look)
        _scale(above.xaxis, best.lr_sum, lambda kind, axis=above: axis.set_xscale(kind))
        _scale(above.yaxis, best[name], lambda kind, axis=above: axis.set_yscale(kind))
        _scale(below.xaxis, best[name], lambda kind, axis=below: axis.set_xscale(kind))
        above.set_xlabel("sum of the learning rates")
        above.set_ylabel(label)
        below.set_xlabel(label)
        below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
    axes[0][0].set_title("What training gives")
    axes[1][0].set_title("What it says of accuracy")
    axes[1][0].set_ylabel("test accuracy")
    many = counted(int(best.examples.iloc[0]), "training example")
    note = f"One mark per run, its best checkpoint; {many}, dropout off. Sharpness: how much the training loss rises "
    note += "when the weights are disturbed. If sharp minima were the reason for a lower accuracy, the lower panels "
    note += "would fall from left to right, also among runs with an equal sum of learning rates."
    key = [*batch_key(colours), *policy_key(marks, with_lines=False)]
    frame(figure, f"{title}: sharpness, learning rates and test accuracy", note, key)
    return figure


def _scale(axis: Any, values: pd.Series, choose: Any) -> None:
    """A logarithmic axis where values are positive and far apart; plain numbers at its ticks."""
    low, high = float(values.min()), float(values.max())
    if low > 0 and high > LOG_FROM_RATIO * low:
        choose("log")
        plain_log(axis)
    else:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}".replace("-", MINUS)))


def correlations_figure(spec: FiguresSpec, table: pd.DataFrame) -> Figure:
    """Rank correlations with test accuracy and their intervals, before and after ΣLR; a panel per model and budget."""
    best = table[table.checkpoint == "best"]
    shown = [
        (title, part)
        for title, model, budget in rows_of(spec)
        if len(part := part_of(best, model, budget)) and "partial" in part and part.accuracy.notna().any()
    ]
    if not shown:
        reason = best.reason.iloc[0] if "reason" in best and len(best) else "no run was measured"
        return sentence_figure("Does sharpness say more of accuracy than the learning rates do?", f"{reason}.")
    names = {"lr_sum": "sum of the learning rates", **SHARPNESS, **OTHERS}
    figure = Figure(figsize=(2.6 + 3.6 * len(shown), 1.5 + 0.42 * len(names)))
    axes = figure.subplots(1, len(shown), sharey=True, sharex=True, squeeze=False)[0]
    for axis, (title, part) in zip(axes, shown, strict=True):
        of_measure = part.set_index("measure")
        for place, name in enumerate(names):
            row = of_measure.loc[name]
            _interval(axis, place - 0.16, row.accuracy, row.accuracy_low, row.accuracy_high, filled=False)
            _interval(axis, place + 0.16, row.partial, row.partial_low, row.partial_high, filled=True)
        axis.axvline(0, color=INK, linewidth=0.8, zorder=1)
        runs, cells = int(part.run_count.max()), int(part.cell_count.max())
        axis.set_title(f"{title}: {counted(runs, 'run')}, {counted(cells, 'cell')}")
        axis.set_xlabel("Spearman correlation with test accuracy")
        axis.set_xlim(-1.05, 1.05)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", MINUS)))
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(names)), list(names.values()))
    axes[0].invert_yaxis()
    note = "Best checkpoints. Hollow: the ranks of the measure against the ranks of test accuracy. Filled: the same "
    note += "after what both share with the sum of the learning rates is taken out. Bars: 95% interval over resampled "
    note += "runs; it takes them as independent. Of twenty intervals about one excludes 0 by chance."
    key: list[Any] = [
        _mark(filled=False, label="as it is"),
        _mark(filled=True, label="at equal sum of learning rates"),
    ]
    frame(figure, "Does sharpness say more of accuracy than the learning rates do?", note, key)
    return figure


def _interval(axis: Axes, place: float, value: float, low: float, high: float, filled: bool) -> None:
    """A correlation and its interval; nothing where there is none."""
    if np.isnan(value):
        return
    sure = not np.isnan(low) and excludes_zero(low, high)
    colour = INK if sure else MUTED
    if not np.isnan(low):
        axis.hlines(place, low, high, color=colour, linewidth=1.3)
    axis.plot(value, place, "o", color=colour, markerfacecolor=colour if filled else PAPER, markersize=5, zorder=3)


def _mark(filled: bool, label: str) -> Line2D:
    face = MUTED if filled else PAPER
    return Line2D([], [], marker="o", linestyle="none", color=MUTED, markerfacecolor=face, label=label)


def paths_figure(spec: FiguresSpec, paths: pd.DataFrame, title: str) -> Figure:
    """Training loss on the straight line between two runs: batch sizes beside seeds, a row per LR policy."""
    heading = f"{title}: the training loss between two runs"
    if not len(paths):
        return sentence_figure(heading, "The study has no two runs that differ in the batch size or the seed alone.")
    colours = batch_colours(spec)
    policies = [policy for policy in spec.policy_names if policy in set(paths.lr_policy)]
    figure = Figure(figsize=(8.4, 1.2 + 2.5 * len(policies)))
    axes = figure.subplots(len(policies), 2, sharex=True, sharey="row", squeeze=False)
    for row, policy in zip(axes, policies, strict=True):
        for axis, kind in zip(row, ("batch sizes", "seeds"), strict=True):
            mine = paths[(paths.lr_policy == policy) & (paths.between == kind)]
            for _, path in mine.groupby(["run_from", "run_to"], sort=False):
                colour = colours[path.batch_to.iloc[0]]
                axis.plot(path.position, path.loss, color=colour, linewidth=1.3, alpha=0.85)
                axis.plot(path.position.iloc[[0, -1]], path.loss.iloc[[0, -1]], "o", color=colour, markersize=3)
            if not len(mine):
                axis.text(0.5, 0.5, "no such pair", ha="center", va="center", transform=axis.transAxes, color=MUTED)
            axis.set_title(f"{policy} LR policy: between {kind}")
        row[0].set_ylabel("training loss, nats")
    smallest = min(spec.batch_sizes)
    axes[-1][0].set_xlabel(f"from batch size {smallest:,} to a larger one, same seed")
    axes[-1][1].set_xlabel("from one seed to another, same batch size")
    axes[-1][0].set_xticks([0, 0.5, 1], ["one run", "mean of both", "the other"])
    note = (
        "Best checkpoints. Each line is the loss of the weights on the straight line between two runs; its rise above "
    )
    note += "the line between its ends is the barrier. No barrier: both runs lie in one basin. The seed also draws the "
    note += "weights that training begins with: all of an encoder from scratch, those of the head of a pretrained one."
    frame(figure, heading, note, batch_key(colours))
    return figure


def cka_figure(spec: FiguresSpec, pairs: pd.DataFrame) -> Figure:
    """Similarity of the pooled features of two runs: batch sizes beside seeds; a panel per model and budget."""
    heading = "How alike are the features of two runs?"
    shown = [(title, part) for title, model, budget in rows_of(spec) if len(part := part_of(pairs, model, budget))]
    if not shown:
        return sentence_figure(heading, "The study has no two runs that differ in the batch size or the seed alone.")
    colours, marks = batch_colours(spec), policy_marks(spec)
    sizes = sorted(colours)
    figure = Figure(figsize=(max(6.4, 1.0 + 4.2 * len(shown)), 4.2))
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    places = {("batch sizes", size): float(number) for number, size in enumerate(sizes[1:])}
    places |= {("seeds", size): len(sizes) + number - 0.4 for number, size in enumerate(sizes)}
    for axis, (title, part) in zip(axes, shown, strict=True):
        for rank, (policy, mark) in enumerate(marks.items()):
            shift = (rank - (len(marks) - 1) / 2) * 0.24
            for (kind, size), place in places.items():
                of_pair = (part.lr_policy == policy) & (part.between == kind) & (part.batch_to == size)
                values, face = part[of_pair].cka, colours[size] if mark.filled else PAPER
                look: dict[str, Any] = {"color": colours[size], "markerfacecolor": face, "markersize": 5.5}
                axis.plot([place + shift] * len(values), values, mark.marker, linestyle="none", **look)
        axis.set_title(title)
        axis.axvline(len(sizes) - 1.2, color=RULE, linewidth=1)
        axis.set_xticks(list(places.values()), [f"{size:,}" for _, size in places])
        axis.set_xlim(-0.6, max(places.values()) + 0.6)
        axis.grid(axis="x", visible=False)
        axis.set_xlabel(f"batch size {sizes[0]:,} against …        |        two seeds at …")
    axes[0].set_ylabel("linear CKA")
    note = (
        "One mark per pair of runs, best checkpoints. Linear CKA of the pooled features that the classifier reads: 1 "
    )
    note += "means equal up to rotation and scale. If the batch size changed the features more than the seed does, the "
    note += "marks on the left would lie below those on the right."
    frame(figure, heading, note, policy_key(marks, with_lines=False))
    return figure
