"""The test reviews as points: the figure of PCA and t-SNE, and the same points for the page's script."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from batchscope.report.findings import read_csv
from batchscope.report.numbers import percent
from batchscope.report.spec import ErrorsShown, FiguresSpec
from batchscope.report.style import INK, MUTED, batch_colours, frame

VERDICTS = ("always", "sometimes", "never")
TONES = ("#9aa1ab", "#d3d6da", "#b9a58c", "#a9c0b4")
"""Of the classes of reviews that are predicted right, in turn."""
MAPS = {"pca": ("pc1", "pc2"), "tsne": ("x", "y")}
CAUTION = "Distances between clusters and the sizes of clusters mean nothing in t-SNE."


def embedding_figures(spec: FiguresSpec, shown: ErrorsShown, tables: Path) -> dict[str, Figure]:
    """Name → figure of every model. Raises FileNotFoundError if a table is missing."""
    points, quality = read_csv(tables, "embedding"), read_csv(tables, "embedding_quality")
    return {
        f"errors_embedding_{model}": embedding_figure(
            spec, points[points.model == model], quality[quality.model == model], model, shown.boundary
        )
        for model in spec.model_names
    }


def embedding_figure(
    spec: FiguresSpec, points: pd.DataFrame, quality: pd.DataFrame, model: str, boundary: float
) -> Figure:
    """A row for PCA and one for t-SNE, a panel per batch size; the panels of a row share their axes."""
    facts = next(quality.itertuples())
    if not len(points):
        figure = Figure(figsize=(7, 0.8))
        frame(figure, f"{model}: no embedding", f"{str(facts.reason).capitalize()}.")
        return figure
    colours = batch_colours(spec)
    sizes = sorted(size for size in colours if (points.target_batch_size == size).any())
    figure = Figure(figsize=(max(6.4, 0.6 + 2.9 * len(sizes)), 6.6))
    axes = figure.subplots(2, len(sizes), squeeze=False, sharex="row", sharey="row")
    for row, (across, up) in zip(axes, (("pc1", "pc2"), ("x", "y")), strict=True):
        for axis, size in zip(row, sizes, strict=True):
            _panel(axis, points[points.target_batch_size == size], across, up, colours[size])
    for axis, size in zip(axes[0], sizes, strict=True):
        axis.set_title(f"batch size {size:,}")
        axis.set_xlabel(f"first component, {percent(facts.variance_1, 0)} of the variance")
    axes[0][0].set_ylabel(f"PCA\nsecond component, {percent(facts.variance_2, 0)}")
    axes[1][0].set_ylabel("t-SNE")
    note = (
        f"{CAUTION} Trustworthiness {facts.trustworthiness:.3f} for t-SNE, {facts.trustworthiness_of_pca:.3f} for the "
    )
    note += f"two components: 1 means that neighbours here are neighbours among the features. {facts.reviews:,} test "
    note += f"{spec.words[1]} of {facts.runs} runs, embedded together: pooled features of the best checkpoints, "
    note += f"{facts.components} components ({percent(facts.variance_kept, 0)} of the variance), perplexity "
    note += f"{facts.perplexity:g}. Grey tones: classes. Ring: wrong with a margin within {boundary:g} of the boundary."
    frame(figure, embedding_message(points, model), note, _key())
    return figure


def embedding_message(points: pd.DataFrame, model: str) -> str:
    """How many of the errors that are drawn are boundary misclassifications."""
    wrong = int(points.wrong.sum())
    if not wrong:
        return f"{model}: no prediction that is drawn here is wrong"
    return f"{model}: {int(points.boundary.sum()):,} of the {wrong:,} errors drawn here are close calls"


def _panel(axis: Axes, points: pd.DataFrame, across: str, up: str, colour: str) -> None:
    """The points of one run; pixels in an SVG too, because there are thousands."""
    right, wrong, near = points[~points.wrong], points[points.wrong & ~points.boundary], points[points.boundary]
    look: dict[str, Any] = {"linestyle": "none", "rasterized": True}
    for number, label in enumerate(sorted(points.label.unique())):
        mine = right[right.label == label]
        axis.plot(mine[across], mine[up], ".", color=TONES[number % len(TONES)], markersize=3, zorder=1, **look)
    axis.plot(wrong[across], wrong[up], "x", color=colour, markersize=4, markeredgewidth=1.0, zorder=2, **look)
    ring: dict[str, Any] = {"markersize": 5.5, "markeredgewidth": 1.2, "markerfacecolor": "none"}
    axis.plot(near[across], near[up], "o", color=colour, zorder=3, **ring, **look)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(False)


def _key() -> Sequence[Artist]:
    look: dict[str, Any] = {"linestyle": "none", "color": INK}
    return [
        Line2D([], [], marker=".", linestyle="none", color=MUTED, label="right"),
        Line2D([], [], marker="x", markersize=5, label="wrong", **look),
        Line2D([], [], marker="o", markersize=6, markerfacecolor="none", label="boundary misclassification", **look),
    ]


def atlas_data(spec: FiguresSpec, shown: ErrorsShown, tables: Path, classes: Sequence[str]) -> dict[str, object]:
    """What ``atlas.js`` draws: per model its reviews and, per run, places, margins and predictions in their order."""
    points, errors = read_csv(tables, "embedding"), read_csv(tables, "errors")
    place = {size: number for number, size in enumerate(sorted(spec.batch_sizes))}
    models = []
    for model in spec.model_names:
        mine, texts = points[points.model == model], errors[errors.model == model].set_index("example_id")
        if not len(mine):
            continue
        first = mine[mine.run == mine.run.iloc[0]]
        reviews = [
            {"label": int(row.label), "verdict": VERDICTS.index(row.verdict)}
            | {"text": str(texts.excerpt[row.example_id])}
            for row in first.itertuples()
        ]
        runs = [_run(rows, place) for _, rows in mine.groupby("run", sort=False)]
        models.append({"model": model, "reviews": reviews, "runs": runs})
    return {"classes": list(classes), "boundary": shown.boundary, "models": models}


def _run(rows: pd.DataFrame, place: dict[int, int]) -> dict[str, object]:
    row = rows.iloc[0]
    size = int(row.target_batch_size)
    labels = {"batch": size, "policy": row.lr_policy, "budget": row.budget, "seed": int(row.seed)}
    numbers = {"margin": rows.margin.round(3).tolist(), "prediction": rows.prediction.tolist()}
    wrong = [number for number, flag in enumerate(rows.wrong) if flag]
    maps = {name: [rows[one].round(2).tolist() for one in pair] for name, pair in MAPS.items()}
    return {"colour": place[size], **labels, **numbers, "wrong": wrong, **maps}
