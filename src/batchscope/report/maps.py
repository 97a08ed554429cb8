"""The attention maps of one run: the last layer large, all layers as a grid, all heads as a larger one."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon
from numpy.typing import NDArray

from batchscope.errors import UserError
from batchscope.files import read_json
from batchscope.insight.records import AttentionMeasures, LayerMeasures, ReviewMeasures
from batchscope.report.glyphs import printable
from batchscope.report.style import (
    ATTENTION_NORM_IN_WORDS,
    ATTENTION_SCALE,
    MUTED,
    NOT_ALLOWED,
    RULE,
    attention_bar,
    attention_norm,
    frame,
    not_allowed_key,
    open_axis,
    save,
)
from batchscope.wording import REVIEWS, Wording

LONGEST_LABEL = 14
MOST_LABELS = 128
SHORT_ENOUGH_TO_LABEL = 32
NAMED_KEYS = 7
MOST_PIXELS = 48
"""Of a head's map in the grid of all heads, across."""
LINE_MARKS = str.maketrans({"\n": "↵", "\r": "↵", "\t": "⇥"})


class ReviewMaps(NamedTuple):
    """The attention of one run for one review."""

    facts: ReviewMeasures
    classes: list[str]
    """Names of the classes in label order."""
    weights: NDArray[np.float32]
    """``[layers, n, n]``: rows are queries, columns keys, heads averaged."""


def draw_maps(run_folder: Path, names: Sequence[str], output_folder: Path, words: Wording = REVIEWS) -> None:
    """Write the pictures of a run for each review in ``names``.

    They are ``{name}_last.png``, the last layer, ``{name}_all.png``, all layers with heads averaged, and
    ``{name}_heads.png``, all heads. For an encoder that gives no attention the pictures say so. Raises UserError if the
    run has no attention of a review.
    """
    reviews, reason = load_attention(run_folder)
    origin = run_in_words(run_folder)
    for name in names:
        last, every, heads = (output_folder / f"{name}_{what}.png" for what in ("last", "all", "heads"))
        if reason is not None:
            for path in (last, every, heads):
                save(sentence_figure(origin, reason), path)
        elif name not in reviews:
            raise UserError(f"{run_folder / 'attention'} has no review {name!r}; run the attention stage again")
        else:
            save(last_layer_figure(reviews[name], origin, words), last)
            save(all_layers_figure(reviews[name], origin, words), every, colours=72)
            save(all_heads_figure(reviews[name], load_heads(run_folder, name), origin, words), heads, colours=72)


def load_attention(run_folder: Path) -> tuple[dict[str, ReviewMaps], str | None]:
    """Review name → its maps; and the reason why there are none, for an encoder that gives no attention."""
    folder = run_folder / "attention"
    try:
        measures: AttentionMeasures = read_json(folder / "measures.json")
        with np.load(folder / "attention.npz") as arrays:
            weights = {name: arrays[name].astype(np.float32) for name in arrays.files if "." not in name}
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing; run the attention stage of this run first") from None
    reviews = {
        facts["name"]: ReviewMaps(facts, measures["classes"], weights[facts["name"]])
        for facts in measures["reviews"]
        if facts["name"] in weights
    }
    return reviews, measures.get("reason")


def load_heads(run_folder: Path, name: str) -> NDArray[np.float32]:
    """The maps ``[layers, H, n, n]`` of every head for one review, rounded to 1/255 of the head's largest weight."""
    path = run_folder / "attention" / "attention.npz"
    with np.load(path) as arrays:
        if f"{name}.levels" not in arrays.files:
            raise UserError(f"{path} has no maps of review {name!r} by head; run the attention stage of this run again")
        unit = arrays[f"{name}.largest"][:, :, None, None] / 255
        found: NDArray[np.float32] = arrays[f"{name}.levels"] * unit
    return found


def sentence_figure(title: str, sentence: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure = Figure(figsize=(7, 0.8))
    frame(figure, title, sentence)
    return figure


def not_allowed(n: int, window: int | None) -> NDArray[np.bool_]:
    """Booleans ``[n, n]``: the cells with |i − j| > window, which a sliding layer leaves out; none if global."""
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    return distance > (n if window is None else window)


def draw_map(
    axis: Axes, weights: NDArray[np.floating], window: int | None, norm: Any, scale: Colormap = ATTENTION_SCALE
) -> None:
    """One map ``[n, n]`` on a bare axis; the cells a window leaves out are grey and hatched instead of zero."""
    n = len(weights)
    axis.imshow(
        np.ma.masked_array(weights, not_allowed(n, window)),
        cmap=scale.with_extremes(bad=NOT_ALLOWED["facecolor"]),
        norm=norm,
        interpolation="nearest",
    )
    open_axis(axis)
    if window is not None and window < n - 1:
        corner = np.array([(window + 0.5, -0.5), (n - 0.5, -0.5), (n - 0.5, n - window - 1.5)])
        for points in (corner, corner[:, ::-1]):
            axis.add_patch(Polygon(points, closed=True, zorder=2, **NOT_ALLOWED))


def prediction_in_words(review: ReviewMaps) -> str:
    """What the model predicts for the review: `predicted positive (p = 0.972)`."""
    return printable(f"predicted {review.classes[review.facts['prediction']]} (p = {review.facts['probability']:.3f})")


def truth_in_words(review: ReviewMaps) -> str:
    """The true label of the review: `labelled positive`."""
    label = review.facts["label"]
    return "no label" if label is None else printable(f"labelled {review.classes[label]}")


def layer_in_words(layer: LayerMeasures) -> str:
    """`layer 12, global`, or `layer 12, window ±64`; counted from 1."""
    kind = "global" if layer["window"] is None else f"window ±{layer['window']}"
    return f"layer {layer['layer'] + 1}, {kind}"


def strongest_keys(weights: NDArray[np.floating], count: int, apart: float) -> list[int]:
    """Positions of the ``count`` keys with most attention over all queries, no two closer than ``apart``, in order."""
    chosen: list[int] = []
    for position in np.argsort(-weights.sum(0), kind="stable"):
        if all(abs(int(position) - other) >= apart for other in chosen):
            chosen.append(int(position))
        if len(chosen) == count:
            break
    return sorted(chosen)


def name_keys(axis: Axes, tokens: Sequence[str], weights: NDArray[np.floating]) -> None:
    """Write below a map of ``weights`` ``[n, n]`` its keys: all of a short review, else those with the largest sums."""
    n = len(tokens)
    shown = list(range(n)) if n <= SHORT_ENOUGH_TO_LABEL else strongest_keys(weights, NAMED_KEYS, n / 24)
    axis.set_xticks(shown, [readable(tokens[position]) for position in shown], rotation=90, fontsize=7)
    axis.set_yticks([])
    axis.tick_params(axis="x", length=2.5, color=MUTED)


def keys_in_words(n: int, which: str) -> str:
    """The sentence of a note about the keys that ``name_keys`` names; empty where it names all ``n``."""
    return "" if n <= SHORT_ENOUGH_TO_LABEL else f"Named below each map: the keys {which}. "


def readable(token: str) -> str:
    """A token fit to print: spaces before it as middle dots, line breaks and tabs as signs, long ones cut."""
    word = token.lstrip(" ")
    text = printable("·" * (len(token) - len(word)) + word.translate(LINE_MARKS))
    return text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"


def has_window(layers: Sequence[LayerMeasures], n: int) -> bool:
    """Whether one of the layers leaves cells out at this length."""
    return any(layer["window"] is not None and layer["window"] < n - 1 for layer in layers)


def run_in_words(run_folder: Path) -> str:
    """`bert, target batch size 64, constant LR policy, seed 42` from the folder of a run."""
    parts = run_folder.resolve().parts
    model, batch, policy, *budget, seed = parts[-5 if parts[-6] == "runs" else -4 :]
    named = "".join(f"budget {name}, " for name in budget)
    size = f"target batch size {batch.removeprefix('bs')}"
    return f"{model}, {size}, {policy} LR policy, {named}{seed.replace('seed', 'seed ')}"


def last_layer_figure(review: ReviewMaps, origin: str, words: Wording = REVIEWS) -> Figure:
    """The last layer's map of a review, its tokens named; ``origin`` says whose it is."""
    layer, last = review.facts["layers"][-1], review.weights[-1]
    n = len(last)
    side = min(12.0, max(6.0, 2.4 + 0.078 * n))
    figure = Figure(figsize=(side + 0.9, side + 0.55))
    axis = figure.subplots()
    norm = attention_norm(float(last.max()), n)
    draw_map(axis, last, layer["window"], norm)
    _label_tokens(axis, review.facts["tokens"])
    axis.set_xlabel("key: token attended to", labelpad=6)
    axis.set_ylabel("query: token that attends", labelpad=6)
    attention_bar(figure, axis, norm)
    what = f"last layer ({layer_in_words(layer)}), mean over heads"
    key = not_allowed_key() if has_window([layer], n) else []
    frame(figure, _title(review, words), f"{origin}; {what}. {ATTENTION_NORM_IN_WORDS}", key)
    return figure


def all_layers_figure(review: ReviewMaps, origin: str, words: Wording = REVIEWS) -> Figure:
    """The maps of all layers of a review on one colour scale."""
    layers, n = review.facts["layers"], review.weights.shape[1]
    columns = _columns(len(layers))
    rows = math.ceil(len(layers) / columns)
    side = max(1.65, min(3.2, 10 / columns))
    figure = Figure(figsize=(columns * side + 0.9, rows * (side + 0.3) + 1.1))
    axes = figure.subplots(rows, columns, squeeze=False)
    norm = attention_norm(float(review.weights.max()), n)
    for axis, layer, weight in zip(axes.flat, layers, review.weights, strict=False):
        draw_map(axis, weight, layer["window"], norm)
        axis.set_title(layer_in_words(layer), fontsize=8, fontweight="normal", pad=4)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(visible=True, color=RULE)
    for axis in axes.flat[len(layers) :]:
        axis.set_visible(False)
    attention_bar(figure, axes, norm)
    what = "mean over heads, rows attend to columns; one colour scale for all layers"
    key = not_allowed_key() if has_window(layers, n) else []
    frame(figure, _title(review, words), f"{origin}; {what}. {ATTENTION_NORM_IN_WORDS}", key)
    return figure


def all_heads_figure(review: ReviewMaps, heads: NDArray[np.float32], origin: str, words: Wording = REVIEWS) -> Figure:
    """The maps ``heads`` ``[layers, H, n, n]`` on one colour scale: a row per layer, a column per head."""
    layers, count, n = heads.shape[:3]
    size = min(n, MOST_PIXELS)
    norm, step = attention_norm(float(heads.max()), n), size + max(1, size // 12)
    picture = np.ones((layers * step, count * step, 4))
    for layer, facts in enumerate(review.facts["layers"]):
        left_out = not_allowed(n, facts["window"])
        for head in range(count):
            colours = ATTENTION_SCALE(norm(pooled(heads[layer, head], size)))
            colours[pooled((~left_out).astype(float), size) == 0] = to_rgba(NOT_ALLOWED["facecolor"])
            picture[layer * step : layer * step + size, head * step : head * step + size] = colours
    side = max(0.36, min(1.1, 7.2 / count, 9 / layers))
    figure = Figure(figsize=(max(8.6, count * side + 1.7), layers * side + 1.5))
    axis = figure.subplots()
    axis.imshow(picture, interpolation="nearest")
    axis.set_anchor("W")
    open_axis(axis)
    axis.set_xticks([(head + 0.5) * step for head in range(count)], [str(head + 1) for head in range(count)])
    names = [layer_in_words(facts).removeprefix("layer ") for facts in review.facts["layers"]]
    axis.set_yticks([(layer + 0.5) * step for layer in range(layers)], names)
    axis.set_xlabel("head")
    axis.set_ylabel("layer")
    attention_bar(figure, axis, norm)
    what = "every head, rows attend to columns; one colour scale"
    key = [Patch(label="not allowed: outside the window", color=NOT_ALLOWED["facecolor"])]
    windowed = key if has_window(review.facts["layers"], n) else []
    frame(figure, _title(review, words), f"{origin}; {what}. {ATTENTION_NORM_IN_WORDS}", windowed)
    return figure


def pooled(values: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    """The largest of the values ``[n, n]`` that fall on each of ``size`` × ``size`` cells, size at most n."""
    starts = np.unique(np.arange(size) * len(values) // size)
    pooled_rows = np.maximum.reduceat(values, starts, axis=0)
    found: NDArray[np.floating] = np.maximum.reduceat(pooled_rows, starts, axis=1)
    return found


def _title(review: ReviewMaps, words: Wording) -> str:
    title = printable(words.of(review.facts["title"]))
    return f"{title}; the model {prediction_in_words(review)}, {truth_in_words(review)}"


def _columns(count: int) -> int:
    """Columns of a grid of ``count`` panels: three rows or fewer where six columns allow it, no lonely last panel."""
    return count if count <= 4 else min(6, math.ceil(count / math.ceil(count / 6)))


def _label_tokens(axis: Axes, tokens: list[str]) -> None:
    n = len(tokens)
    shown = range(0, n, math.ceil(n / MOST_LABELS))
    labels = [readable(tokens[position]) for position in shown]
    size = max(5.0, min(8.5, 640 / n))
    axis.set_xticks(list(shown), labels, rotation=90, fontsize=size)
    axis.set_yticks(list(shown), labels, fontsize=size)
    axis.tick_params(pad=2)
