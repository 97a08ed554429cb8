"""The errors of a study's runs as figures: margins, accuracy by group, always and sometimes wrong, flips."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from batchscope.errors import counted
from batchscope.report.calibration import rows_of
from batchscope.report.catalogue import suffix
from batchscope.report.embedding import embedding_figures
from batchscope.report.findings import read_csv
from batchscope.report.glyphs import printable
from batchscope.report.numbers import percent
from batchscope.report.spec import ErrorsShown, FiguresSpec
from batchscope.report.style import INK, MUTED, PAPER, RULE, batch_colours, batch_key, frame, ratio_axis

KINDS = {"class": "class", "tokens": "length in tokens", "truncated": "truncated?"}
CLEAR = 2.5
"""Standard errors of a difference between two groups from which on a title speaks of it."""
MOST_CLASSES = 8
LONGEST_NAME = 16
SEEN = 0.005
"""Share of the margins at either end that a panel leaves out."""


def error_figures(spec: FiguresSpec, shown: ErrorsShown, tables: Path) -> dict[str, Figure]:
    """Name → figure. Raises FileNotFoundError if a table is missing."""
    counts, groups, margins, flips = (
        read_csv(tables, name) for name in ("error_counts", "error_groups", "margins", "flips")
    )
    drawn = {"errors_verdicts": verdicts_figure(spec, counts), "errors_flips": flips_figure(spec, flips)}
    for title, model, budget in rows_of(spec):
        part, end = spec.of_budget(budget), f"{model}{suffix(spec, budget)}"
        drawn[f"errors_margins_{end}"] = margins_figure(part, margins, counts, model, title, shown.boundary)
        drawn[f"errors_groups_{end}"] = groups_figure(part, groups, model, title)
    return drawn | (embedding_figures(spec, shown, tables) if shown.embedding else {})


def of_cells(
    spec: FiguresSpec, table: pd.DataFrame, model: str, policy: str | None = None, batch: int | None = None
) -> pd.DataFrame:
    """The rows of the cells of a model, and of one policy and batch size if they are given.

    A row is named by the run of its first seed; of policies that share runs, one row is kept.
    """
    runs = [
        cell.run
        for cell in spec.cells
        if cell.model == model and policy in (None, cell.policy) and batch in (None, cell.batch)
    ]
    columns = ["run", *(name for name in ("by", "group", "share") if name in table)]
    return table[table.run.isin(runs)].drop_duplicates(columns)


# ------------------------------------------------------------------------------------------------------------ margins


def margins_figure(
    spec: FiguresSpec, margins: pd.DataFrame, counts: pd.DataFrame, model: str, title: str, boundary: float
) -> Figure:
    """Share of predictions below each margin: a panel per policy, a curve per batch size. No embedding is needed."""
    colours, policies = batch_colours(spec), spec.policy_names
    sizes = sorted(colours)
    figure = Figure(figsize=(max(5.6, 0.6 + 4.2 * len(policies)), 4.3))
    axes = figure.subplots(1, len(policies), squeeze=False, sharex=True, sharey=True)[0]
    mine = of_cells(spec, margins, model)
    inner = mine[(mine.share >= SEEN) & (mine.share <= 1 - SEEN)].margin
    for axis, policy in zip(axes, policies, strict=True):
        axis.axvspan(-boundary, boundary, color=RULE, alpha=0.6, linewidth=0, zorder=0)
        axis.axvline(0, color=INK, linewidth=0.9, zorder=1)
        said = []
        for size in sizes:
            found = of_cells(spec, margins, model, policy, size)
            row = of_cells(spec, counts, model, policy, size)
            axis.plot(found.margin, found.share, color=colours[size], linewidth=1.5, zorder=3)
            if len(row):
                total = (row.run_count * row.examples).iloc[0]
                wrong, near = row.wrong.iloc[0] / total, row.wrong_near_boundary.iloc[0] / total
                axis.plot(0, wrong, "o", color=colours[size], markersize=4.5, markeredgecolor=PAPER, zorder=4)
                said.append((size, f"{size:,}: {percent(wrong)} wrong, {percent(near)} by less than {boundary:g}"))
        _listed(axis, said, colours)
        axis.set_title(f"{policy} LR policy")
        axis.set_xlabel("margin: logit of the label − largest other logit")
        axis.set_ylim(0, 1)
        if len(inner):
            axis.set_xlim(min(inner.min(), -1.5 * boundary), max(inner.max(), 1.5 * boundary))
    axes[0].set_ylabel("share of predictions with a smaller margin")
    axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value, 0)))
    note = f"Left of the line the prediction is wrong. Shaded: within {boundary:g} of the boundary, where a small "
    note += "change of the model changes the prediction. A model that made few updates has "
    note += f"small logits, and so more of its errors lie there. Best checkpoint on the test {spec.words[1]}"
    note += ", the seeds together." if len(spec.seeds) > 1 else f", seed {spec.seeds[0]}."
    frame(figure, margins_message(of_cells(spec, counts, model), title), note, batch_key(colours))
    return figure


def margins_message(counts: pd.DataFrame, title: str) -> str:
    """How many of the errors are close calls, over the cells."""
    wrong = counts[counts.wrong > 0]
    if not len(wrong):
        return f"{title}: no test prediction is wrong"
    shares = wrong.wrong_near_boundary / wrong.wrong
    low, high = percent(shares.min(), 0), percent(shares.max(), 0)
    return f"{title}: {low if low == high else f'{low} to {high}'} of the errors are close calls"


def _listed(axis: Axes, lines: Sequence[tuple[int, str]], colours: dict[int, str]) -> None:
    """Coloured lines of text in the free corner below the curves' right ends."""
    look: dict[str, Any] = {"fontsize": 7.5, "ha": "right", "transform": axis.transAxes, "zorder": 5}
    for number, (size, text) in enumerate(reversed(lines)):
        axis.text(0.98, 0.04 + 0.055 * number, text, color=colours[size], **look)


# ------------------------------------------------------------------------------------------------------------- groups


def groups_figure(spec: FiguresSpec, groups: pd.DataFrame, model: str, title: str) -> Figure:
    """Accuracy by class, length and truncation: a row per policy, a panel per kind of group, a mark per batch size."""
    colours, policies = batch_colours(spec), spec.policy_names
    sizes, mine = sorted(colours), of_cells(spec, groups, model)
    shown = {kind: _names(mine[mine.by == kind]) for kind in KINDS}
    shown = {kind: names for kind, names in shown.items() if len(names) > 1}
    if not shown:
        return _sentence(f"{title}: all test {spec.words[1]} are of one class and one length")
    widths = [max(2, len(names)) for names in shown.values()]
    figure = Figure(figsize=(max(6.4, 1.2 + 0.85 * sum(widths)), 1.2 + 2.5 * len(policies)))
    axes = figure.subplots(len(policies), len(shown), squeeze=False, sharey=True, sharex="col", width_ratios=widths)
    for row, policy in zip(axes, policies, strict=True):
        for axis, (kind, names) in zip(row, shown.items(), strict=True):
            for rank, size in enumerate(sizes):
                found = of_cells(spec, groups, model, policy, size)
                found = found[found.by == kind].set_index("group").reindex(names)
                places = np.arange(len(names)) + (rank - (len(sizes) - 1) / 2) * min(0.22, 0.7 / len(sizes))
                axis.vlines(places, found.low, found.high, color=colours[size], linewidth=1.3, alpha=0.75)
                axis.plot(places, found.accuracy, "o", color=colours[size], markersize=4.2)
            axis.set_xticks(range(len(names)), [_group_name(kind, name) for name in names])
            axis.set_xlim(-0.6, len(names) - 0.4)
            axis.grid(axis="x", visible=False)
        row[0].set_ylabel(f"{policy} LR policy\naccuracy")
        row[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
    for axis, kind in zip(axes[0], shown, strict=True):
        axis.set_title(KINDS[kind])
    note = (
        f"Best checkpoint on the test {spec.words[1]}. Bars: 95% Wilson interval at the number of {spec.words[1]} of "
    )
    note += (
        "one seed, because the seeds share them. Where the bars of two groups are far apart, the group matters more "
    )
    note += "than chance explains."
    if mine[mine.by == "class"].group.nunique() > MOST_CLASSES:
        note += f" Of the classes, the {MOST_CLASSES} with the lowest accuracy."
    frame(figure, groups_message(mine, title), note, batch_key(colours))
    return figure


def _names(rows: pd.DataFrame) -> list[str]:
    """The groups of one kind in their order; of many classes those with the lowest accuracy."""
    names = list(dict.fromkeys(rows.group))
    if len(names) > MOST_CLASSES:
        worst = set(_pooled(rows).nsmallest(MOST_CLASSES).index)
        return [name for name in names if name in worst]
    return names


def _pooled(rows: pd.DataFrame) -> pd.Series:
    """Group → accuracy over all cells of ``rows``."""
    rows = rows.assign(predictions=rows.examples * rows.seeds)
    sums = rows.groupby("group", sort=False)[["correct", "predictions"]].sum()
    return sums.correct / sums.predictions


def _group_name(kind: str, name: str) -> str:
    if kind == "truncated":
        return "cut" if name == "true" else "whole"
    if kind == "tokens":
        low, high = name.split(" to ")
        return low if low == high else f"{low}\N{EN DASH}{high}"
    return printable(name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…")


def groups_message(groups: pd.DataFrame, title: str) -> str:
    """Which two groups of one kind differ most clearly, over all cells; the reviews of one seed count."""
    spread = {}
    for kind in KINDS:
        rows = groups[groups.by == kind]
        pooled = _pooled(rows)
        if len(pooled) > 1:
            ends = [pooled.idxmin(), pooled.idxmax()]
            there = rows.drop_duplicates("group").set_index("group").examples[ends].to_numpy()
            shares = pooled[ends].to_numpy()
            error = np.sqrt((shares * (1 - shares) / there).sum())
            spread[kind] = (shares[1] - shares[0]) / error if error else 0.0
    if not spread or max(spread.values()) < CLEAR:
        return f"{title}: accuracy does not clearly differ between groups"
    kind = max(spread, key=lambda name: spread[name])
    pooled = _pooled(groups[groups.by == kind])
    worst, best = _group_name(kind, str(pooled.idxmin())), _group_name(kind, str(pooled.idxmax()))
    by = {"class": "class", "tokens": "length", "truncated": "truncation"}[kind]
    said = f"{worst} {percent(pooled.min())}, {best} {percent(pooled.max())}"
    return f"{title}: accuracy differs by {by} ({said})"


# ----------------------------------------------------------------------------------------------------------- verdicts


def verdicts_figure(spec: FiguresSpec, counts: pd.DataFrame) -> Figure:
    """Reviews that are always or sometimes wrong: a bar over all runs of a policy, and one per batch size."""
    colours, bars = batch_colours(spec), _bars(spec, counts)
    figure = Figure(figsize=(8.2, 1.4 + 0.24 * len(bars) + 0.15 * sum(size is None for _, size, _ in bars)))
    axis = figure.subplots()
    places = np.cumsum([0.0, *(1.7 if size is None else 1.0 for _, size, _ in bars[1:])])
    for place, (_, size, row) in zip(places, bars, strict=True):
        colour = MUTED if size is None else colours[size]
        always, sometimes = row.always / row.examples, row.sometimes / row.examples
        axis.barh(place, always, height=0.72, color=colour)
        axis.barh(place, sometimes, left=always, height=0.72, color=colour, alpha=0.35)
        several = row.run_count > 1
        text = f" {percent(always)} always, {percent(sometimes)} sometimes" if several else f" {percent(always)} wrong"
        axis.text(always + sometimes, place, text, va="center", fontsize=7.5, color=INK)
    axis.set_yticks(places, [name for name, *_ in bars])
    axis.set_ylim((places[-1] if len(bars) else 0) + 0.7, -0.7)
    axis.margins(x=0.3)
    axis.set_xlim(left=0)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(f"share of the test {spec.words[1]}")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))
    key: list[Artist] = [
        Patch(color=MUTED, label="wrong in every run"),
        Patch(color=MUTED, alpha=0.35, label="in some"),
    ]
    note = f"{spec.words[1].capitalize()} that every run gets wrong are hard or mislabelled, whatever the batch size. "
    note += "Those that only some runs get wrong are decided by the training: the grey bars count all batch sizes and "
    note += "seeds of a policy together, the coloured ones the seeds of one batch size."
    frame(figure, verdicts_message([row for _, size, row in bars if size is None], spec.words), note, key)
    return figure


def _bars(spec: FiguresSpec, counts: pd.DataFrame) -> list[tuple[str, int | None, Any]]:
    """Name, batch size and row of ``error_counts.csv`` of every bar."""
    bars: list[tuple[str, int | None, Any]] = []
    together = counts[counts.target_batch_size.isna()]
    for title, model, budget in rows_of(spec):
        part = spec.of_budget(budget)
        for policy in part.policy_names:
            rows = together[
                (together.model == model) & (together.budget == budget) & (together.lr_policy == policy)
            ].itertuples()
            bars += [(f"{title} · {policy} · all runs", None, row) for row in rows]
            for size in sorted(part.batch_sizes):
                found = of_cells(part, counts, model, policy, size).itertuples()
                bars += [(f"{title} · {policy} · {size:,}", size, row) for row in found]
    return bars


def verdicts_message(together: Sequence[Any], words: tuple[str, str]) -> str:
    """How many reviews are always and sometimes wrong, over the policies."""
    if not together:
        return f"Test {words[1]} that are always or sometimes wrong"
    always, sometimes = ([getattr(row, name) / row.examples for row in together] for name in ("always", "sometimes"))
    said = [f"{_range(always)} of the test {words[1]} are wrong in every run"]
    if any(row.run_count > 1 for row in together):
        said.append(f"{_range(sometimes)} in some runs only")
    return ", ".join(said)


def _range(shares: Sequence[float]) -> str:
    low, high = percent(min(shares)), percent(max(shares))
    return low if low == high else f"{low} to {high}"


# -------------------------------------------------------------------------------------------------------------- flips


def flips_figure(spec: FiguresSpec, flips: pd.DataFrame) -> Figure:
    """Predictions that differ between two batch sizes and between two seeds, and the ratio of the two."""
    names = [
        " · ".join([row.model, row.lr_policy, *([row.budget] if spec.several_budgets else [])])
        for row in flips.itertuples()
    ]
    figure = Figure(figsize=(9.2, 1.5 + 0.34 * len(flips)))
    shares, ratios = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(flips.itertuples()):
        _flip_row(shares, ratios, place, row)
    shares.set_yticks(range(len(names)), names)
    shares.set_ylim(len(names) - 0.4, -0.6)
    shares.margins(x=0.08)
    shares.set_xlim(left=0)
    shares.set_xlabel(f"share of the test {spec.words[1]} predicted differently")
    shares.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))
    ratio_axis(ratios, flips)
    ratios.set_xlabel("ratio: batch sizes over seeds")
    for axis in (shares, ratios):
        axis.grid(axis="y", visible=False)
    note = "Two runs with the same batch size and another seed also predict differently. At a ratio of 1 another batch "
    note += (
        "size changes as many predictions as another seed, above 1 more. Bars: 95% interval over resampled seeds and "
    )
    note += f"{spec.words[1]}; with two seeds over {spec.words[1]} alone, with fewer than five it is rough."
    frame(figure, flips_message(flips), note, _flip_key())
    return figure


def _flip_row(shares: Axes, ratios: Axes, place: int, row: Any) -> None:
    """The marks of one row of ``flips.csv``; the reason where there is no ratio."""
    look: dict[str, Any] = {"color": INK, "markersize": 6.5, "markeredgewidth": 1.4, "linestyle": "none"}
    ends = [value for value in (row.between_batch_sizes, row.between_seeds) if not pd.isna(value)]
    shares.plot(ends, [place] * len(ends), color=MUTED, linewidth=1, zorder=1)
    if not pd.isna(row.between_batch_sizes):
        shares.plot(row.between_batch_sizes, place, "s", **look)
    if not pd.isna(row.between_seeds):
        shares.plot(row.between_seeds, place, "o", markerfacecolor=PAPER, **look)
    if pd.isna(row.ratio):
        said = str(row.reason) or "no prediction differs between seeds"
        ratios.text(0.5, place, f" {said}", fontsize=7.5, color=MUTED, va="center", backgroundcolor=PAPER)
        return
    if not pd.isna(row.low):
        ratios.plot([row.low, row.high], [place, place], color=INK, linewidth=1.4)
    if row.ratio > 0:
        ratios.plot(row.ratio, place, "D", **(look | {"markersize": 5.5}))


def _flip_key() -> list[Artist]:
    look: dict[str, Any] = {"color": INK, "linestyle": "none", "markersize": 6, "markeredgewidth": 1.4}
    return [
        Line2D([], [], marker="s", label="between batch sizes of one seed", **look),
        Line2D([], [], marker="o", markerfacecolor=PAPER, label="between seeds of one batch size", **look),
    ]


def flips_message(flips: pd.DataFrame) -> str:
    """Does the batch size change more predictions than the seed? By the intervals."""
    known = flips[flips.low.notna()]
    if not len(known):
        return "Predictions that differ between batch sizes and between seeds"
    more, fewer = int((known.low > 1).sum()), int((known.high < 1).sum())
    many = len(known)
    if not more and not fewer:
        return "Another batch size does not change detectably more predictions than another seed"
    if more == many:
        return "Another batch size changes more predictions than another seed"
    if fewer == many:
        return "Another batch size changes fewer predictions than another seed"
    told = [f"more predictions in {more}"] * (more > 0) + [f"fewer in {fewer}"] * (fewer > 0)
    return f"Against another seed, another batch size changes {' and '.join(told)} of {counted(many, 'comparison')}"


def _sentence(title: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure = Figure(figsize=(7, 0.6))
    frame(figure, title, "")
    return figure
