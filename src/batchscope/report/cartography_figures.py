"""Figures of the training examples: maps of variability and confidence, and what decides where an example lies."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator, NullLocator

from batchscope.errors import counted
from batchscope.report.calibration import rows_of
from batchscope.report.catalogue import suffix
from batchscope.report.errors import of_cells
from batchscope.report.findings import read_csv
from batchscope.report.maps import sentence_figure
from batchscope.report.numbers import MINUS, listed, percent
from batchscope.report.spec import FiguresSpec
from batchscope.report.style import AS_MUCH, INK, MUTED, PAPER, batch_colours, frame, ratio_axis
from batchscope.statistics.cartography import BORDER, REGIONS

TABLES = ("cartography", "cartography_regions", "cartography_pairs", "cartography_ratio")
MEASURES = ("confidence", "variability")
MARKS = {"confidence": ("D", True), "variability": ("D", False), "region": ("^", True)}
"""What is compared → its marker in the panel of ratios, and whether it is filled."""
NARROWEST = 0.2
"""Least range of the axis of variability."""
CELLS_ACROSS = 26
HEADING = "Which training examples are easy or hard: batch size against seed"
DENSITY_SCALE = LinearSegmentedColormap.from_list("density", ["#d5e8e0", "#94c8c2", "#4896ab", "#235f8c", "#15284f"])


class Tables(NamedTuple):
    """The tables of the stage."""

    examples: pd.DataFrame
    regions: pd.DataFrame
    pairs: pd.DataFrame
    ratios: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> "Tables":
        """Raises FileNotFoundError if one is missing."""
        return cls(*(read_csv(folder, name) for name in TABLES))


def cartography_figures(spec: FiguresSpec, folder: Path) -> dict[str, Figure]:
    """Name → figure, from the tables in a folder. Raises FileNotFoundError if one is missing."""
    tables = Tables.read(folder)
    drawn = {"cartography_agreement": agreement_figure(spec, tables)}
    for title, model, budget in rows_of(spec):
        name = f"cartography_map_{model}{suffix(spec, budget)}"
        drawn[name] = map_figure(spec.of_budget(budget), tables, model, title)
    return drawn


# -------------------------------------------------------------------------------------------------------------- maps


def map_figure(spec: FiguresSpec, tables: Tables, model: str, title: str) -> Figure:
    """Training examples by variability and confidence: a row per LR policy, a panel per batch size, one scale."""
    regions = of_cells(spec, tables.regions, model)
    examples = tables.examples[tables.examples.run.isin({cell.run for cell in spec.cells if cell.model == model})]
    if not len(examples):
        return sentence_figure(f"{title}: no map of the training examples", f"{regions.reason.iloc[0]}.")
    colours, policies = batch_colours(spec), spec.policy_names
    sizes = sorted(colours)
    figure = Figure(figsize=(max(6.4, 1.5 + 2.6 * len(sizes)), 1.6 + 2.55 * len(policies)))
    axes = figure.subplots(len(policies), len(sizes), squeeze=False, sharex=True, sharey=True)
    widest = max(NARROWEST, np.ceil(10 * float(examples.variability.max())) / 10)
    drawn: list[PolyCollection] = []
    for (policy, size), axis in zip(product(policies, sizes), axes.flat, strict=True):
        runs = [c.run for c in spec.cells if (c.model, c.policy, c.batch) == (model, policy, size)]
        # Policies that share runs have the rows of both.
        mine = examples[examples.run.isin(runs)].drop_duplicates(["run", "example_id"])
        if len(mine):
            drawn.append(_density(axis, mine, widest))
        _borders(axis, widest)
        _headed(axis, size, colours[size], of_cells(spec, tables.regions, model, policy, size))
    norm = LogNorm(
        1, max(2.0, *(float(np.max(counts)) for cells in drawn if (counts := cells.get_array()) is not None))
    )
    for cells in drawn:
        cells.set_norm(norm)
    for row, policy in zip(axes, policies, strict=True):
        row[0].set_ylabel(f"{policy} LR policy\nconfidence")
    for axis in axes[-1]:
        axis.set_xlabel("variability")
    axes[0][0].xaxis.set_major_locator(MultipleLocator(0.1))
    axes[0][0].yaxis.set_major_locator(MaxNLocator(5))
    bar = figure.colorbar(ScalarMappable(norm, DENSITY_SCALE), ax=axes, shrink=0.7, aspect=30, pad=0.015)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2, labelsize=7.5, color=MUTED)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.set_label("examples")
    frame(figure, map_message(regions, title), _map_note(spec, regions), ())
    return figure


def _density(axis: Axes, examples: pd.DataFrame, widest: float) -> PolyCollection:
    """Cells that count the examples; their colours are set once all panels are drawn."""
    return axis.hexbin(
        examples.variability,
        examples.confidence,
        gridsize=(CELLS_ACROSS, CELLS_ACROSS * 5 // 8),
        extent=(0, widest, 0, 1),
        mincnt=1,
        linewidths=0.2,
        cmap=DENSITY_SCALE,
    )


def _map_note(spec: FiguresSpec, regions: pd.DataFrame) -> str:
    facts = regions.iloc[0]
    seeds = f", {counted(len(spec.seeds), 'seed')} together" if len(spec.seeds) > 1 else ""
    note = f"{int(facts.examples):,} training examples after each of {int(facts.epochs)} epochs{seeds}. Confidence: "
    note += "mean probability that the model gives the label; variability: its standard deviation over the epochs. "
    note += f"Easy: confidence − variability above {BORDER:g}. Hard: confidence + variability below {BORDER:g}. "
    return f"{note}Ambiguous: all between. The colour counts examples, on one scale for all panels."


def _borders(axis: Axes, widest: float) -> None:
    """The lines between the regions, and the regions' names at the right edge."""
    for sign in (1, -1):
        axis.plot([0, widest], [BORDER, BORDER + sign * widest], color=INK, linewidth=0.8, zorder=3)
    look: dict[str, Any] = {"fontsize": 7, "color": MUTED, "ha": "right", "zorder": 4}
    axis.text(0.985 * widest, 0.98, "easy", va="top", **look)
    axis.text(0.985 * widest, BORDER, "ambiguous", va="center", **look)
    axis.text(0.985 * widest, 0.02, "hard", va="bottom", **look)
    axis.set_xlim(0, widest)
    axis.set_ylim(0, 1)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _headed(axis: Axes, size: int, colour: str, regions: pd.DataFrame) -> None:
    axis.set_title(f"batch size {size:,}\n", color=colour, pad=2)
    if len(regions):
        said = " · ".join(f"{name} {percent(share, 0)}" for name, share in shares(regions.iloc[0]).items())
        axis.text(0, 1.02, said, transform=axis.transAxes, fontsize=7.5, color=MUTED, in_layout=False)


def shares(row: "pd.Series[Any]") -> dict[str, float]:
    """Region → its share of the examples of a row of ``cartography_regions.csv``, its runs together."""
    return {region: row[region] / (row.examples * row.run_count) for region in REGIONS}


def map_message(regions: pd.DataFrame, title: str) -> str:
    """How the share of easy examples moves from the smallest to the largest batch size."""
    of_size = regions.dropna(subset=["target_batch_size", "easy"])
    sums = of_size.assign(all=of_size.examples * of_size.run_count).groupby("target_batch_size")[["easy", "all"]].sum()
    easy = sums.easy / sums["all"]
    if len(easy) < 2:
        return f"{title}: {percent(easy.iloc[0], 0)} of the training examples are easy"
    start = f"{percent(easy.iloc[0], 0)} of the training examples are easy at batch size {easy.index[0]:,.0f}"
    return f"{title}: {start}, {percent(easy.iloc[-1], 0)} at {easy.index[-1]:,.0f}"


# --------------------------------------------------------------------------------------------------------- agreement


def agreement_figure(spec: FiguresSpec, tables: Tables) -> Figure:
    """Rank correlations of two batch sizes and of two seeds, a mark per pair of runs; and the ratios."""
    groups = list(tables.regions.drop_duplicates(["model", "lr_policy", "budget"]).itertuples())
    if not len(tables.pairs):
        reasons = [str(row.reason) for row in groups if row.reason] or ["there are no two runs to compare"]
        return sentence_figure(HEADING, f"{reasons[0]}.")
    figure = Figure(figsize=(10.4, 1.7 + 0.62 * len(groups)))
    *correlations, ratios = figure.subplots(1, 3, sharey=True)
    for place, row in enumerate(groups):
        pairs, found = (_of_group(table, row) for table in (tables.pairs, tables.ratios))
        for axis, measure in zip(correlations, MEASURES, strict=True):
            _pair_marks(axis, place, pairs, measure)
        _ratio_marks(ratios, place, found, str(row.reason))
    names = [" · ".join([r.model, r.lr_policy, *([r.budget] if spec.several_budgets else [])]) for r in groups]
    correlations[0].set_yticks(range(len(names)), names)
    correlations[0].set_ylim(len(names) - 0.45, -0.55)
    for axis, measure in zip(correlations, MEASURES, strict=True):
        axis.set_title(f"Order by {measure}")
        axis.set_xlabel("Spearman correlation of two runs")
        axis.margins(x=0.08)
        axis.set_xlim(right=1.0)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}".replace("-", MINUS)))
        axis.xaxis.set_major_locator(MaxNLocator(5))
    ratios.set_title("Batch sizes over seeds")
    ratio_axis(ratios, tables.ratios)
    ratios.set_xlabel("ratio of the differences")
    for axis in (*correlations, ratios):
        axis.grid(axis="y", visible=False)
    note = "A correlation of 1: both runs order the training examples alike. Small marks: pairs of runs, large ones "
    note += "their mean. If the batch size decided the order, squares would lie left of circles. Right: the difference "
    note += "between batch sizes over that between seeds; above 1 the batch size changes more than the seed does. "
    note += "Bars: 95% interval over resampled seeds and examples; with fewer than five seeds it is rough."
    frame(figure, agreement_message(tables.ratios), note, _agreement_key())
    return figure


def _of_group(table: pd.DataFrame, row: Any) -> pd.DataFrame:
    wanted = (table.model == row.model) & (table.lr_policy == row.lr_policy) & (table.budget == row.budget)
    return table[wanted]


def _pair_marks(axis: Axes, place: int, pairs: pd.DataFrame, measure: str) -> None:
    """Pairs of batch sizes above the middle of the row, pairs of seeds below it."""
    for kind, marker, shift in (("batch sizes", "s", -0.17), ("seeds", "o", 0.17)):
        values = pairs[pairs.between == kind][measure].dropna()
        face = INK if kind == "batch sizes" else PAPER
        look: dict[str, Any] = {"marker": marker, "linestyle": "none", "markerfacecolor": face}
        axis.plot(values, [place + shift] * len(values), color=MUTED, markersize=3, alpha=0.7, **look)
        if len(values):
            axis.plot(values.mean(), place + shift, color=INK, markersize=6.5, markeredgewidth=1.4, **look)


def _ratio_marks(axis: Axes, place: int, found: pd.DataFrame, reason: str) -> None:
    told = [row for row in found.itertuples() if not pd.isna(row.ratio)]
    if not told:
        said = next((row.reason for row in found.itertuples() if row.reason), reason) or "no run differs"
        axis.text(AS_MUCH[0], place, f" {said}", fontsize=7.5, color=MUTED, va="center", backgroundcolor=PAPER)
    for row in told:
        marker, filled = MARKS[row.what]
        at = place + 0.25 * (list(MARKS).index(row.what) - 1)
        if not pd.isna(row.low):
            axis.plot([row.low, row.high], [at, at], color=INK, linewidth=1.2)
        if row.ratio > 0:
            axis.plot(row.ratio, at, marker, color=INK, markerfacecolor=INK if filled else PAPER, markersize=5)


def _agreement_key() -> Sequence[Artist]:
    look: dict[str, Any] = {"color": INK, "linestyle": "none", "markersize": 5.5, "markeredgewidth": 1.2}
    names = {"confidence": "1 − correlation of confidence", "variability": "of variability", "region": "changed region"}
    return [
        Line2D([], [], marker="s", label="two batch sizes, same seed", **look),
        Line2D([], [], marker="o", markerfacecolor=PAPER, label="two seeds, same batch size", **look),
        *(
            Line2D([], [], marker=marker, markerfacecolor=INK if filled else PAPER, label=names[what], **look)
            for what, (marker, filled) in MARKS.items()
        ),
    ]


def agreement_message(ratios: pd.DataFrame) -> str:
    """Does the batch size change more than the seed? By the intervals of the ratios."""
    known = ratios[ratios.low.notna()]
    if not len(known):
        return HEADING
    more, less = int((known.low > 1).sum()), int((known.high < 1).sum())
    if not more and not less:
        return "Another batch size does not detectably move the training examples more than another seed"
    if more == len(known):
        return "Another batch size moves the training examples more than another seed"
    told = [f"more in {more}"] * (more > 0) + [f"less in {less}"] * (less > 0)
    many = counted(len(known), "ratio")
    return f"Against another seed, another batch size moves the training examples {listed(told)} of {many}"
