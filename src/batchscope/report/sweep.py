"""The learning-rate sweeps of a study: heat maps, what the best of n trials is worth, and the table of choices."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from matplotlib.typing import LineStyleType
from numpy.typing import NDArray

from batchscope.errors import counted
from batchscope.report.findings import read_csv
from batchscope.report.numbers import accuracy, duration, listed, percent, scientific
from batchscope.report.spec import FiguresSpec, TablesSpec
from batchscope.report.style import INK, PAPER, SWEEP_SCALE, batch_colours, batch_key, frame
from batchscope.report.table import Table, together
from batchscope.statistics.sweep import POINTS, Choice, chosen_grid

S = TypeVar("S", bound=TablesSpec)
RULES: dict[str, float] = {"constant": 0.0, "√": 0.5, "linear": 1.0}
"""Scaling rule → the power of the batch size that the learning rate follows."""
LINES: dict[str, LineStyleType] = {"constant": "-", "√": (0, (5, 2)), "linear": (0, (1.5, 1.5))}
HALO = [withStroke(linewidth=3.5, foreground=PAPER)]
"""Keeps a dark line visible on a dark cell."""


class SweepSection(NamedTuple):
    """What the page says of the sweeps, besides its figures."""

    table: Table
    sentences: list[str]


def chosen_by(spec: S, results: pd.DataFrame) -> S:
    """The grid as validation chose it: of every sweep the learning rate that is in the results."""
    rows = results[results.lr_policy.isin(spec.sweep_names)]
    columns = ["model", "lr_policy", "budget", "target_batch_size", "learning_rate"]
    places = rows[columns].itertuples(index=False, name=None)
    return chosen_grid(spec, {(model, policy, budget, batch): rate for model, policy, budget, batch, rate in places})


def read_choices(tables: Path) -> list[Choice]:
    """The rows of ``tuning.csv``."""
    rows = read_csv(tables, "tuning")[list(Choice._fields)].itertuples(index=False, name=None)
    return [Choice(*row) for row in rows]


# ------------------------------------------------------------------------------------------------------------ figures


def sweep_figures(spec: FiguresSpec, tables: Path) -> dict[str, Figure]:
    """Name → figure of every model; none for a study without a sweep."""
    if not spec.sweep_names:
        return {}
    tried, best = read_csv(tables, "sweep"), read_csv(tables, "best_of_n")
    figures = {}
    for model in spec.model_names:
        figures[f"sweep_{model}"] = heat_maps(spec, tried[tried.model == model], model)
        figures[f"best_of_n_{model}"] = best_of_n(spec, best[best.model == model], model)
    return figures


def heat_maps(spec: FiguresSpec, tried: pd.DataFrame, model: str) -> Figure:
    """Validation accuracy over learning rate and batch size of one model; a panel per sweep and budget."""
    panels = list(product(spec.sweep_names, spec.budget_names))
    figure = Figure(figsize=(max(5.6, 4.6 * len(panels)), 4.6))
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    low, high = tried.validation_accuracy.min(), tried.validation_accuracy.max()
    for axis, (policy, budget) in zip(axes, panels, strict=True):
        mine = tried[(tried.lr_policy == policy) & (tried.budget == budget)]
        _heat_map(axis, mine, float(low), float(max(high, low + 1e-9)))
        axis.set_title(f"{policy}, {budget}" if spec.several_budgets else f"{policy} LR policy")
        axis.set_xlabel("target batch size (log scale)")
    axes[0].set_ylabel("learning rate (log scale)")
    seeds = int(tried.seeds.max())
    note = f"Mean over {counted(seeds, 'seed')} of the best checkpoint's validation accuracy. Framed: chosen. Lines "
    note += "start at the rate chosen for the smallest batch size and follow the scaling rules."
    key = [Line2D([], [], color=INK, linewidth=1.3, linestyle=LINES[name], label=name) for name in RULES]
    frame(figure, f"{model}: validation accuracy by learning rate and target batch size", note, key)
    return figure


def _heat_map(axis: Axes, tried: pd.DataFrame, low: float, high: float) -> None:
    sizes, rates = (np.sort(tried[name].unique()) for name in ("target_batch_size", "learning_rate"))
    grid = tried.pivot(index="learning_rate", columns="target_batch_size", values="validation_accuracy")
    x, y = _edges(np.log2(sizes)), _edges(np.log10(rates))
    axis.pcolormesh(x, y, grid.loc[rates, sizes].to_numpy(), cmap=SWEEP_SCALE, vmin=low, vmax=high)
    for row in tried.itertuples():
        dark = (row.validation_accuracy - low) / (high - low) > 0.55
        column = int(np.searchsorted(sizes, row.target_batch_size))
        line = int(np.searchsorted(rates, row.learning_rate))
        place = np.log2(row.target_batch_size), y[line] + (y[line + 1] - y[line]) / 5  # below the lines of the rules
        axis.text(*place, percent(row.validation_accuracy), ha="center", va="center", color=PAPER if dark else INK)
        if row.chosen:
            width, height = x[column + 1] - x[column], y[line + 1] - y[line]
            frame_of_choice = Rectangle((x[column], y[line]), width, height, fill=False, edgecolor=INK, linewidth=2)
            axis.add_patch(frame_of_choice)
    first = tried[tried.chosen & (tried.target_batch_size == sizes[0])].learning_rate.iloc[0]
    along = np.linspace(np.log2(sizes[0]), x[-1], 50)
    for name, power in RULES.items():
        rate = np.log10(first) + power * (along - along[0]) * np.log10(2)
        axis.plot(along, rate, color=INK, linestyle=LINES[name], path_effects=HALO)
    axis.set_xlim(x[0], x[-1])
    axis.set_ylim(y[0], y[-1])
    axis.set_xticks(np.log2(sizes), [f"{size:,}" for size in sizes])
    axis.set_yticks(np.log10(rates), [scientific(rate) for rate in rates])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.grid(visible=False)


def _edges(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Borders of the cells around ascending ``centres``: in the middle between two, as far outwards at the ends."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def best_of_n(spec: FiguresSpec, best: pd.DataFrame, model: str) -> Figure:
    """Expected validation accuracy of the best of n learning rates of one model; a line per batch size."""
    panels, colours = list(product(spec.sweep_names, spec.budget_names)), batch_colours(spec)
    figure = Figure(figsize=(max(5.6, 4.6 * len(panels)), 3.7))
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (policy, budget) in zip(axes, panels, strict=True):
        mine = best[(best.lr_policy == policy) & (best.budget == budget)]
        for batch, colour in colours.items():
            line = mine[mine.target_batch_size == batch]
            axis.plot(line.trials, line.expected_validation_accuracy, "o-", color=colour, markersize=4)
        axis.set_title(f"{policy}, {budget}" if spec.several_budgets else f"{policy} LR policy")
        axis.set_xlabel("learning rates tried")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes[0].set_ylabel("expected validation accuracy of the best")
    axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
    note = "n rates drawn with replacement from those of the sweep (Dodge et al. 2019). A steep line needs its tuning."
    frame(figure, f"{model}: what tuning the learning rate is worth, by target batch size", note, batch_key(colours))
    return figure


# --------------------------------------------------------------------------------------------------------------- page


def sweep_section(made: Sequence[Choice], tables: Path) -> SweepSection | None:
    """The table of choices and what to read from it; None for a study without a sweep."""
    if not made:
        return None
    several = len({one.budget for one in made}) > 1
    columns = ["model", "LR policy", *(["budget"] if several else []), "#batch size", "#chosen LR"]
    columns += ["#validation accuracy", "at the edge", f"#LR range within {POINTS:g} point", "#width"]
    rows = [
        [one.model, one.lr_policy, *([one.budget] if several else []), f"{one.target_batch_size:,}"]
        + [scientific(one.learning_rate), accuracy(one.validation_accuracy), one.edge or "no"]
        + [f"{scientific(one.lowest_within)} to {scientific(one.highest_within)}", _width(one)]
        for one in together(made)
    ]
    tried = read_csv(tables, "sweep")
    runs, seconds = counted(int(tried.seeds.sum()), "run"), duration(float(tried.seconds.sum()))
    spent = f"The sweep reads {runs} of {seconds} in all; the cost table below counts the chosen ones alone."
    note = f"Chosen by validation accuracy, mean over {counted(made[0].seeds, 'seed')}, which makes that accuracy a "
    note += f"little optimistic; no test review took part. Range: rates beside the chosen one within {POINTS:g} point "
    note += "of it; its width as a factor, with ≥ where it reaches an edge of the sweep (Marek et al. 2025)."
    return SweepSection(Table(columns, rows, note), [*_edges_in_words(made), spent])


def _width(one: Choice) -> str:
    return f"{'≥ ' if one.open_ends else ''}{one.width_ratio:.3g}×"


def _edges_in_words(made: Sequence[Choice]) -> list[str]:
    """In which cells the best rate is at an edge of the sweep: there a better one may lie beyond it."""
    at_edge = [one for one in made if one.edge]
    if not at_edge:
        return []
    cells = listed(
        f"{one.model}, {one.budget}, batch size {one.target_batch_size:,} (the {one.edge}; chosen: "
        f"{scientific(one.learning_rate)})"
        for one in at_edge
    )
    return [
        f"In {len(at_edge)} of {counted(len(made), 'cell')} no learning rate is better than one at an edge of the "
        f"sweep: {cells}. A better rate may lie beyond it: add rates there before comparing batch sizes."
    ]
