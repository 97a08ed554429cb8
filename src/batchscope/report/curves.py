"""Training and validation curves of one model, from the history table."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from batchscope.report.spec import FiguresSpec
from batchscope.report.style import batch_colours, batch_key, frame
from batchscope.statistics.curves import running_mean

LOG_FROM_RATIO = 4


def training_figure(spec: FiguresSpec, history: pd.DataFrame, model: str, quantity: str, title: str) -> Figure:
    """Training ``accuracy`` or ``loss`` of a model under one budget: against updates and against samples seen."""
    policies, colours = spec.policy_names, batch_colours(spec)
    span = max(colours)
    rows = history[(history.kind == "update") & (history.model == model)]
    smooth = {run: running_mean(one, span) for run, one in rows.groupby("run")}
    figure = Figure(figsize=(max(5.6, 4.7 * len(policies)), 6.4))
    axes = figure.subplots(2, len(policies), sharey=True, squeeze=False)
    most, fewest = (pick(one["update"].max() for one in smooth.values()) for pick in (max, min))
    for column, policy in enumerate(policies):
        for row, progress in enumerate(("update", "samples")):
            axis = axes[row, column]
            for batch, colour in colours.items():
                curves = [smooth[run] for run in runs_of(spec, model, policy, batch)]
                if not curves:  # in a part of a study
                    continue
                _draw_seeds(axis, curves, progress, quantity, colour)
            if progress == "update":
                _updates_axis(axis, logarithmic=most / fewest >= LOG_FROM_RATIO, most=most)
            else:
                axis.set_xlabel("samples seen")
                axis.xaxis.set_major_locator(MaxNLocator(6))
                axis.xaxis.set_major_formatter(FuncFormatter(thousands))
            if row == 0:
                axis.set_title(f"{policy} LR policy")
        if quantity == "accuracy":
            axes[0, column].yaxis.set_major_formatter(FuncFormatter(_percent))
    for row in range(2):
        axes[row, 0].set_ylabel("training accuracy" if quantity == "accuracy" else "training loss (cross entropy)")
    note = f"Running mean over at least {span:,} samples, as seen during training{_seeds_in_words(spec)}."
    frame(figure, f"{title}: training {quantity} by target batch size", note, batch_key(colours))
    return figure


def validation_figure(spec: FiguresSpec, history: pd.DataFrame, model: str, title: str) -> Figure:
    """Validation accuracy of a model under one budget after each epoch; a dot is the epoch that the test uses."""
    policies, colours = spec.policy_names, batch_colours(spec)
    rows = history[(history.kind == "epoch") & (history.model == model)]
    by_run = dict(list(rows.assign(accuracy=rows.validation_accuracy).groupby("run")))
    figure = Figure(figsize=(max(5.6, 4.7 * len(policies)), 3.7))
    axes = figure.subplots(1, len(policies), sharey=True, squeeze=False)[0]
    for axis, policy in zip(axes, policies, strict=True):
        for batch, colour in colours.items():
            curves = [by_run[run] for run in runs_of(spec, model, policy, batch)]
            if not curves:  # in a part of a study
                continue
            _draw_seeds(axis, curves, "epoch", "accuracy", colour)
            best = pd.DataFrame([curve.loc[curve.validation_correct.idxmax()] for curve in curves])
            axis.plot(best.epoch, best.accuracy, "o", color=colour, markersize=5, markeredgecolor="white")
        axis.set_title(f"{policy} LR policy")
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes[0].set_ylabel("validation accuracy")
    axes[0].yaxis.set_major_formatter(FuncFormatter(_percent))
    which = "the one its test accuracy comes from"
    if spec.select_from == "all":
        which = "unless a validation within an epoch was better, the one its test accuracy comes from"
    note = f"A dot is the best epoch of a run, {which}{_seeds_in_words(spec)}."
    frame(figure, f"{title}: validation accuracy by target batch size", note, batch_key(colours))
    return figure


CLOCKS = {
    "update": "update",
    "samples": "samples seen",
    "flops": "FLOPs",
    "lr_sum": "ΣLR",
    "seconds": "seconds of training",
}
"""Column of ``curves.csv`` → what it measures."""


def validation_cost_figure(spec: FiguresSpec, reached: pd.DataFrame, model: str, title: str) -> Figure:
    """Validation accuracy of a model under one budget against every clock; a row per policy, a line per batch size.

    ``reached`` is ``curves.csv``. Seeds make the same updates but not in the same seconds: their mean is over
    validations of equal number. A clock that was not measured, such as FLOPs of an encoder that does not say its
    layers, has no panel.
    """
    policies, colours = spec.policy_names, batch_colours(spec)
    figure = Figure(figsize=(13.5, 0.9 + 2.6 * len(policies)))
    clocks = [clock for clock in CLOCKS if reached[clock].notna().all()]
    axes = figure.subplots(len(policies), len(clocks), sharey=True, sharex="col", squeeze=False)
    for row, policy in zip(axes, policies, strict=True):
        for axis, clock in zip(row, clocks, strict=True):
            for batch, colour in colours.items():
                runs = [reached[reached.run == run] for run in runs_of(spec, model, policy, batch)]
                numbered = pd.concat([run.assign(number=range(len(run))) for run in runs])
                if len(runs) > 1:
                    for run in runs:
                        axis.plot(run[clock], run.validation_accuracy, color=colour, alpha=0.3, linewidth=0.8)
                mean = numbered.groupby("number")[[clock, "validation_accuracy"]].mean()
                axis.plot(mean[clock], mean.validation_accuracy, color=colour, linewidth=1.7)
            axis.xaxis.set_major_locator(MaxNLocator(4))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
        row[0].set_title(f"{policy} LR policy")
        row[0].set_ylabel("validation accuracy")
        row[0].yaxis.set_major_formatter(FuncFormatter(_percent))
    for axis, clock in zip(axes[-1], clocks, strict=True):
        axis.set_xlabel(CLOCKS[clock])
    note = f"Every validation of a run{_seeds_in_words(spec)}. FLOPs: from the encoder's shapes, padding included. "
    note += "Seconds: of the updates. A vertical line compares batch sizes at an equal cost."
    frame(figure, f"{title}: validation accuracy at equal cost", note, batch_key(colours))
    return figure


def runs_of(spec: FiguresSpec, model: str, policy: str, batch: int) -> list[str]:
    """The runs of a model, policy and batch size, one per seed."""
    return [c.run for c in spec.cells if (c.model, c.policy, c.batch) == (model, policy, batch)]


def _draw_seeds(axis: Axes, curves: list[pd.DataFrame], progress: str, quantity: str, colour: str) -> None:
    """The mean over seeds, where all have a value; behind it each seed, faint."""
    several = len(curves) > 1
    if several:
        draw_faint(axis, ((curve[progress], curve[quantity]) for curve in curves), colour)
    pooled = pd.concat(curves).groupby(progress)[quantity].agg(["mean", "size"])
    mean = pooled.loc[pooled["size"] == len(curves), "mean"]
    axis.plot(mean.index, mean, color=colour, linewidth=1.7, marker="" if len(mean) > 1 else "o", markersize=4)


def draw_faint(axis: Axes, curves: Iterable[tuple["pd.Series[float]", "pd.Series[float]"]], colour: str) -> None:
    """The curves of single seeds, in one artist: a line of its own for each takes minutes in a study of thousands."""
    points = [np.column_stack([x.to_numpy(float), y.to_numpy(float)]) for x, y in curves]
    faintness = min(0.3, 6 / len(points))
    axis.add_collection(LineCollection(points, colors=colour, alpha=faintness, linewidths=0.8))
    axis.autoscale_view()


def _updates_axis(axis: Axes, logarithmic: bool, most: int) -> None:
    axis.set_xlabel("update (log scale)" if logarithmic else "update")
    if logarithmic:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if most < 1000 else (1, 3), numticks=12))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.tick_params(axis="x", which="minor", length=0)
    axis.xaxis.set_major_formatter(FuncFormatter(thousands))


def _seeds_in_words(spec: FiguresSpec) -> str:
    seeds = spec.seeds
    return f"; strong line: mean of {len(seeds)} seeds, faint: each seed" if len(seeds) > 1 else f"; seed {seeds[0]}"


def thousands(value: float, _: int) -> str:
    return f"{value:,.0f}" if value >= 1 or value == 0 else ""


def _percent(value: float, _: int) -> str:
    return f"{100 * value:.4g}%"
