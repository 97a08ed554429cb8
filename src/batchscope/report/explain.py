"""What a finished run makes of one text: its classes in words, and its attention and rollout as figures."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from batchscope.insight.records import Explanation
from batchscope.report.maps import (
    MOST_LABELS,
    ReviewMaps,
    all_layers_figure,
    last_layer_figure,
    readable,
    sentence_figure,
)
from batchscope.report.numbers import percent
from batchscope.report.style import ATTENTION_SCALE, INK, frame, save

TOKENS_NAMED = 8


def explanation_in_words(found: Explanation, classes: Sequence[str], max_length: int) -> str:
    """Classes with their probabilities, and the tokens with most rollout attention."""
    ranked = sorted(zip(found.probabilities, classes, strict=True), reverse=True)
    lines = [f"{name}: {probability:.4f}" for probability, name in ranked]
    if found.cut:
        lines.append(f"The text was cut to {max_length} tokens, as the training's were.")
    if found.reason is not None:
        return "\n".join([*lines, found.reason])
    named = ", ".join(f"{readable(token)} {percent(share)}" for token, share in found.strongest(TOKENS_NAMED))
    even = percent(1 / len(found.rollout))
    return "\n".join([*lines, f"Most rollout attention (even would be {even} each): {named}"])


def draw_explanation(found: Explanation, classes: list[str], run: str, folder: Path) -> Iterator[Path]:
    """Write the figures ``last``, ``all`` and ``rollout`` as PNG and SVG to ``folder``; yields their paths.

    For an encoder that gives no attention each says so.
    """
    for name, figure in _figures(found, classes, run).items():
        for form in ("png", "svg"):
            path = folder / f"{name}.{form}"
            save(figure, path)
            yield path


def _figures(found: Explanation, classes: list[str], run: str) -> dict[str, Figure]:
    if found.reason is not None:
        return {name: sentence_figure(run, found.reason) for name in ("last", "all", "rollout")}
    review = ReviewMaps(found.facts, classes, found.weights)
    return {
        "last": last_layer_figure(review, run),
        "all": all_layers_figure(review, run),
        "rollout": rollout_figure(found, run),
    }


def rollout_figure(found: Explanation, run: str) -> Figure:
    """Rollout attention of every token, in units of even shares."""
    n = len(found.rollout)
    lift = n * found.rollout
    figure = Figure(figsize=(max(6.4, min(14.0, 1.2 + 0.13 * n)), 3.2))
    axis = figure.subplots()
    axis.bar(range(n), lift, width=0.8, color=ATTENTION_SCALE(0.7))
    axis.axhline(1, color=INK, linewidth=0.8)
    shown = range(0, n, math.ceil(n / MOST_LABELS))
    labels = [readable(found.facts["tokens"][place]) for place in shown]
    axis.set_xticks(list(shown), labels, rotation=90, fontsize=max(5.0, min(8.5, 640 / n)))
    axis.set_xlim(-0.7, n - 0.3)
    axis.grid(axis="x", visible=False)
    axis.set_ylabel("rollout, × even share")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    note = f"{run}. Attention rollout (Abnar and Zuidema 2020): the maps of all layers, heads averaged and each mixed "
    note += (
        "half and half with the residual connection, multiplied, then averaged over the positions that the classifier "
    )
    note += "pools. Line: the even share. It follows attention alone, and is no proof of what the prediction rests on."
    frame(figure, "How much of each token reaches the output", note)
    return figure
