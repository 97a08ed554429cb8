"""All figures of a study, from its tables and the runs' attention."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from batchscope.errors import UserError, counted
from batchscope.report.attention_figures import attention_figures
from batchscope.report.calibration import calibration_figures
from batchscope.report.cartography_figures import cartography_figures
from batchscope.report.catalogue import attention_cells, figure_names, seed_cell, suffix
from batchscope.report.curves import training_figure, validation_cost_figure, validation_figure
from batchscope.report.difference_maps import difference_figure
from batchscope.report.errors import error_figures
from batchscope.report.findings import read_csv, read_findings
from batchscope.report.forest import forest_figure
from batchscope.report.geometry_figures import geometry_figures
from batchscope.report.glyphs import printable
from batchscope.report.maps import (
    ReviewMaps,
    draw_map,
    has_window,
    keys_in_words,
    layer_in_words,
    load_attention,
    name_keys,
    prediction_in_words,
    sentence_figure,
    truth_in_words,
)
from batchscope.report.noise import noise_scale_figure
from batchscope.report.spec import FiguresSpec, GridCell
from batchscope.report.style import (
    ATTENTION_NORM_IN_WORDS,
    INK,
    MUTED,
    PAPER,
    RULE,
    PolicyMark,
    attention_bar,
    attention_norm,
    batch_colours,
    batch_key,
    frame,
    not_allowed_key,
    policy_key,
    policy_marks,
    save,
)
from batchscope.report.sweep import chosen_by, sweep_figures
from batchscope.statistics.paired import wilson_interval
from batchscope.wording import Wording

LOG_FROM_RATIO = 10
SUBTITLE: dict[str, Any] = {"fontsize": 7.5, "color": MUTED, "in_layout": False}


def draw_figures(spec: FiguresSpec, study_folder: Path) -> None:
    """Write every figure of ``catalogue.figure_names(spec)`` under ``figures/``.

    ``spec`` is ``Study.figures_spec()``. Raises UserError if the tables or a run's attention are missing.
    """
    try:
        results = pd.read_parquet(study_folder / "tables" / "results.parquet")
        history = pd.read_parquet(study_folder / "tables" / "history.parquet")
        reached = read_csv(study_folder / "tables", "curves")
        findings = read_findings(study_folder)
        branches = read_csv(study_folder / "tables", "branches") if spec.branches else None
    except FileNotFoundError as error:
        raise UserError(f"{error.filename or error} is missing; make the tables first") from None
    names = [Path(entry.name) for entry in figure_names(spec)]
    drawn = sweep_figures(spec, study_folder / "tables")
    spec = chosen_by(spec, results)
    drawn |= {"accuracy": accuracy_figure(spec, results), "cost": cost_figure(spec, results)}
    drawn["contrasts"] = forest_figure(spec, findings)
    drawn["quality_cost"] = quality_cost_figure(spec, results)
    if spec.calibration:
        drawn |= calibration_figures(spec, study_folder / "tables")
    if spec.geometry:
        drawn |= geometry_figures(spec, study_folder / "tables")
    if spec.attention_measures:
        drawn |= attention_figures(spec, study_folder / "tables")
    if spec.errors:
        drawn |= error_figures(spec, spec.errors, study_folder / "tables")
    if spec.cartography:
        drawn |= cartography_figures(spec, study_folder / "tables")
    for model in spec.model_names:
        for budget in spec.budget_names:
            part, end = spec.of_budget(budget), suffix(spec, budget)
            title = f"{model}, {budget}" if spec.several_budgets else model
            mine = history[(history.model == model) & history.run.isin({cell.run for cell in part.cells})]
            for quantity in ("accuracy", "loss"):
                drawn[f"training_{quantity}_{model}{end}"] = training_figure(part, mine, model, quantity, title)
            drawn[f"validation_accuracy_{model}{end}"] = validation_figure(part, mine, model, title)
            if spec.validates_within_epochs:
                drawn[f"validation_cost_{model}{end}"] = validation_cost_figure(part, reached, model, title)
            if spec.shows_noise:
                drawn[f"noise_scale_{model}{end}"] = noise_scale_figure(part, mine, model, title, branches)
        drawn |= _attention_figures(spec, model, study_folder)
    for name in names:
        save(drawn[name.stem], study_folder / "figures" / name)


def _attention_figures(spec: FiguresSpec, model: str, study_folder: Path) -> dict[str, Figure]:
    """Name → figures of every review; the reason in place of maps for an encoder that gives no attention."""
    cells, seed = attention_cells(spec, model), seed_cell(spec, model)
    read = {cell: load_attention(study_folder / "runs" / cell.run) for cell in [*cells, *([seed] if seed else [])]}
    figures = {}
    for name in spec.review_names:
        change = None
        reason = next((reason for _, reason in read.values() if reason is not None), None)
        lacking = [cell.run for cell, (reviews, _) in read.items() if name not in reviews]
        if reason is not None:
            figure = change = sentence_figure(f"{model}: no attention", reason)
        elif lacking:
            raise UserError(f"run {lacking[0]} has no attention of review {name!r}; make its attention again")
        else:
            maps = [(cell, reviews[name]) for cell, (reviews, _) in read.items()]
            shown, words = maps[: len(cells)], Wording(*spec.words)
            figure = attention_figure(model, shown, words)
            if len(shown) > 1:
                change = difference_figure(model, shown, maps[-1] if seed else None, words)
        figures[f"attention_{model}_{name}"] = figure
        if change is not None:
            figures[f"attention_difference_{model}_{name}"] = change
    return figures


def accuracy_figure(spec: FiguresSpec, results: pd.DataFrame) -> Figure:
    """Test accuracy against the target batch size: a panel per model and budget, a line per policy, a bar per run."""
    models, marks, colours = spec.model_names, policy_marks(spec), batch_colours(spec)
    sizes = sorted(colours)
    budgets = spec.budget_names
    figure = Figure(figsize=(max(5.2, 4.4 * len(models)), 0.9 + 3.4 * len(budgets)))
    axes = figure.subplots(len(budgets), len(models), sharey=True, squeeze=False)
    for (budget, model), axis in zip(product(budgets, models), axes.flat, strict=True):
        mine = results[(results.model == model) & (results.budget == budget)]
        for rank, (policy, mark) in enumerate(marks.items()):
            shift = (rank - (len(marks) - 1) / 2) * 0.22
            _policy_line(axis, mine[mine.lr_policy == policy], sizes, colours, mark, shift)
        axis.set_title(f"{model}, {budget}" if spec.several_budgets else model)
        axis.set_xticks(range(len(sizes)), [f"{size:,}" for size in sizes])
        axis.set_xlim(-0.5, len(sizes) - 0.5)
        axis.set_xlabel("target batch size")
        axis.grid(axis="x", visible=False)
    for axis in axes[:, 0]:
        axis.set_ylabel("test accuracy")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
    seeds, reviews = spec.seeds, int(results.test_examples.iloc[0])
    what = "Small dots are seeds, large marks their mean" if len(seeds) > 1 else f"Seed {seeds[0]}"
    note = f"{what}. Bars: 95% Wilson interval of one run's accuracy over {reviews:,} test {spec.words[1]}."
    if did_not_learn(results).any():
        note += " Crosses: runs that did not learn."
    frame(figure, "Test accuracy by target batch size", note, policy_key(marks))
    return figure


def cost_figure(spec: FiguresSpec, results: pd.DataFrame) -> Figure:
    """Seconds and samples per second of every run; a bar is the mean over seeds, dots are the seeds."""
    colours = batch_colours(spec)
    runs = results[~results.shared]
    groups = list(runs.groupby(["model", "target_batch_size", "lr_policy", "budget"], sort=False))
    models = spec.model_names
    places = [number + 0.6 * models.index(model) for number, ((model, *_), _) in enumerate(groups)]
    figure = Figure(figsize=(9.4, 1.5 + 0.3 * len(groups)))
    axes = figure.subplots(1, 2, sharey=True)
    for axis, column, label in zip(
        axes, ("seconds", "samples_per_second"), ("seconds per run", "samples per second while training"), strict=True
    ):
        for place, (_, group) in zip(places, groups, strict=True):
            axis.barh(place, group[column].mean(), height=0.66, color=colours[group.target_batch_size.iloc[0]])
            if len(group) > 1:
                dot = {
                    "color": INK,
                    "markersize": 4,
                    "markeredgecolor": PAPER,
                    "markeredgewidth": 0.8,
                    "linestyle": "none",
                }
                axis.plot(group[column], [place] * len(group), "o", **dot)
        axis.set_title(label)
        axis.grid(axis="y", visible=False)
        axis.spines["left"].set_visible(False)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    named = [(model, f"{batch:,}", policy, budget) for (model, batch, policy, budget), _ in groups]
    parts = 4 if spec.several_budgets else 3
    axes[0].set_yticks(places, [" · ".join(names[:parts]) for names in named])
    axes[0].invert_yaxis()
    devices = ", ".join(f"{device} ({precision})" for device, precision in _distinct(runs, "device", "precision"))
    seeds = " Bars: mean over seeds; dots: each seed." if len(runs) > len(groups) else ""
    budget = " · budget" if spec.several_budgets else ""
    frame(figure, f"Cost of a run: model · target batch size · LR policy{budget}", f"On {devices}.{seeds}")
    return figure


def quality_cost_figure(spec: FiguresSpec, results: pd.DataFrame) -> Figure:
    """Test accuracy of every run against its seconds, and below against its energy if every run's was measured."""
    models, marks, colours = spec.model_names, policy_marks(spec), batch_colours(spec)
    runs = results[~results.shared].assign(watt_hours=results.energy_joules / 3600)
    costs = {"seconds": "seconds per run"}
    if runs.watt_hours.notna().all():
        costs["watt_hours"] = "energy of the card, Wh"
    parts = list(product(costs.items(), spec.budget_names))
    figure = Figure(figsize=(max(7.2, 4.4 * len(models)), 1.3 + 3.1 * len(parts)))
    axes = figure.subplots(len(parts), len(models), sharex="row", sharey=True, squeeze=False)
    for row, ((cost, label), budget) in zip(axes, parts, strict=True):
        of_row = runs[runs.budget == budget]
        for axis, model in zip(row, models, strict=True):
            look: dict[str, Any] = {"linestyle": "none", "markersize": 6.5, "markeredgewidth": 1.5, "zorder": 3}
            for (policy, batch), group in of_row[of_row.model == model].groupby(["lr_policy", "target_batch_size"]):
                mark, colour = marks[policy], colours[batch]
                face = colour if mark.filled else "none"
                axis.vlines(group[cost], *_intervals(group), color=colour, linewidth=1, alpha=0.35, zorder=2)
                axis.plot(group[cost], group.test_accuracy, mark.marker, color=colour, markerfacecolor=face, **look)
            axis.set_title(f"{model}, {budget}" if spec.several_budgets else model)
            axis.set_xlabel(label)
            if of_row[cost].max() > LOG_FROM_RATIO * of_row[cost].min() > 0:
                axis.set_xscale("log")
                axis.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=12))
                axis.tick_params(axis="x", which="minor", length=0)
            else:
                axis.set_xlim(0, 1.06 * of_row[cost].max())
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
        row[0].set_ylabel("test accuracy")
        row[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
    devices = ", ".join(f"{device} ({precision})" for device, precision in _distinct(runs, "device", "precision"))
    reviews = f"{int(results.test_examples.iloc[0]):,} test {spec.words[1]}"
    note = f"One mark per run; bars: 95% Wilson interval of its accuracy over {reviews}. On {devices}."
    key = policy_key(marks, with_lines=False)
    frame(figure, "Quality against cost, by target batch size", note, [*batch_key(colours), *key])
    return figure


def attention_figure(model: str, maps: Sequence[tuple[GridCell, ReviewMaps]], words: Wording) -> Figure:
    """Last layer's maps of one review side by side over batch sizes, on one colour scale.

    ``maps`` holds per batch size the cell and the review's maps of its run.
    """
    first = maps[0][1]
    side = min(3.6, 8.5 / len(maps))
    layer, n = first.facts["layers"][-1], first.weights.shape[1]
    figure = Figure(figsize=(side * len(maps) + 0.9, side + 1.6))
    axes = figure.subplots(1, len(maps), squeeze=False)[0]
    norm = attention_norm(max(float(review.weights[-1].max()) for _, review in maps), n)
    for axis, (cell, review) in zip(axes, maps, strict=True):
        draw_map(axis, review.weights[-1], layer["window"], norm)
        axis.set_title(f"target batch size {cell.batch:,}\n", pad=2)
        axis.text(0, 1.02, prediction_in_words(review), transform=axis.transAxes, **SUBTITLE)
        axis.spines[:].set(visible=True, color=RULE)
        name_keys(axis, review.facts["tokens"], review.weights[-1])
    axes[0].set_ylabel("query: token that attends")
    attention_bar(figure, axes, norm)
    cell = maps[0][0]
    note = (
        f"Last layer ({layer_in_words(layer)}), mean over heads; {cell.policy} LR policy, {cell.budget}, seed "
        f"{cell.seed}; "
        f"{counted(n, 'token')}. {keys_in_words(n, 'with most attention')}{ATTENTION_NORM_IN_WORDS}"
    )
    title = f"{model}: {printable(words.of(first.facts['title']))}, {truth_in_words(first)}"
    frame(figure, title, note, not_allowed_key() if has_window([layer], n) else [])
    return figure


def _policy_line(
    axis: Axes, rows: pd.DataFrame, sizes: list[int], colours: dict[int, str], mark: PolicyMark, shift: float
) -> None:
    """One policy of one model: runs with their intervals, and their means joined; a cross on runs that failed."""
    rows = rows.assign(did_not_learn=did_not_learn(rows))
    means = []
    for place, size in enumerate(sizes):
        group, colour = rows[rows.target_batch_size == size], colours[size]
        if group.empty:  # in a part of a study
            continue
        several = len(group) > 1
        x = place + shift + (np.linspace(-0.075, 0.075, len(group)) if several else np.zeros(1))
        low, high = _intervals(group)
        axis.vlines(x, low, high, color=colour, linewidth=1.1, alpha=0.5 if several else 1, zorder=2)
        if several:
            axis.plot(x, group.test_accuracy, "o", color=colour, markersize=2.6, zorder=2)
        failed = group.did_not_learn.to_numpy()
        axis.plot(x[failed], group.test_accuracy[failed], "x", color=INK, markersize=6, markeredgewidth=1.4, zorder=5)
        mean = group.test_correct.sum() / group.test_examples.sum()
        means.append((place + shift, mean))
        face, edge = (colour, PAPER) if mark.filled and several else (colour if mark.filled else PAPER, colour)
        look: dict[str, Any] = {"markersize": 7, "markeredgewidth": 1.5, "markeredgecolor": edge, "zorder": 4}
        axis.plot(place + shift, mean, mark.marker, markerfacecolor=face, **look)
    axis.plot(*np.array(means).reshape(-1, 2).T, color=MUTED, linewidth=1, linestyle=mark.line, zorder=3)


def _intervals(results: pd.DataFrame) -> np.ndarray:
    """``[2, rows]``: the 95% Wilson interval of each row's test accuracy, low and high."""
    return np.array([wilson_interval(run.test_accuracy, run.test_examples) for run in results.itertuples()]).T


def did_not_learn(results: pd.DataFrame) -> "pd.Series[bool]":
    """Per row whether the run diverged or its tested checkpoint predicts one class alone."""
    return results.diverged | results.constant_prediction.notna()


def _distinct(frame: pd.DataFrame, *columns: str) -> list[tuple[Any, ...]]:
    return list(frame[list(columns)].drop_duplicates().itertuples(index=False, name=None))
