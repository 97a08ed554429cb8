"""How the last layer's map of one review differs between batch sizes, and between two seeds as a yardstick."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from batchscope.errors import counted
from batchscope.report.glyphs import printable
from batchscope.report.maps import ReviewMaps, draw_map, has_window, keys_in_words, layer_in_words, name_keys
from batchscope.report.spec import GridCell
from batchscope.report.style import DIFFERENCE_SCALE, RULE, cube_root, difference_bar, frame, not_allowed_key
from batchscope.wording import Wording

Shown = tuple[GridCell, ReviewMaps]


def moved(one: NDArray[np.floating], two: NDArray[np.floating]) -> float:
    """Share of the attention that differs between two maps ``[n, n]``: mean over rows of half the sum of |a − b|."""
    return float(np.abs(two - one).sum(1).mean() / 2)


def difference_figure(model: str, maps: Sequence[Shown], other_seed: Shown | None, words: Wording) -> Figure:
    """Last layer's maps of one review minus that of the first batch size; ``other_seed`` has its batch size.

    ``maps`` holds per batch size, two at least, the cell and the review's maps of its run.
    """
    (cell, first), *others = maps
    before = first.weights[-1]
    shown = [(f"batch size {one.batch:,} − {cell.batch:,}", review.weights[-1]) for one, review in others]
    if other_seed is not None:
        shown.append((f"seed {other_seed[0].seed} − {cell.seed}", other_seed[1].weights[-1]))
    layer, n = first.facts["layers"][-1], len(before)
    side = min(3.6, 8.5 / len(shown))
    figure = Figure(figsize=(max(6.4, side * len(shown) + 0.9), side + 2.0))
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    largest = max(1e-6, *(float(np.abs(after - before).max()) for _, after in shown))
    ends = float(np.cbrt(largest))
    for axis, (name, after) in zip(axes, shown, strict=True):
        norm = Normalize(-ends, ends)
        draw_map(axis, cube_root(after - before), layer["window"], norm, DIFFERENCE_SCALE)
        axis.set_title(f"{name}\n{100 * moved(before, after):.1f}% of the attention moved", pad=4)
        axis.spines[:].set(visible=True, color=RULE)
        name_keys(axis, first.facts["tokens"], np.abs(after - before))
    axes[0].set_ylabel("query: token that attends")
    difference_bar(figure, axes, largest)
    note = f"Last layer ({layer_in_words(layer)}), mean over heads; {cell.policy} LR policy, {cell.budget}, seed "
    note += (
        f"{cell.seed}; {counted(n, 'token')}. {keys_in_words(n, 'whose attention changed most')}"
        f"Orange: more attention than at batch size {cell.batch:,}, blue: less. "
    )
    note += (
        "Colour follows the cube root of the difference. Attention moved: half the sum of the absolute differences of "
    )
    note += "a row, mean over rows."
    title = f"{model}. {printable(words.of(first.facts['title']))}: {_message(first, others, other_seed)}"
    frame(figure, title, note, not_allowed_key() if has_window([layer], n) else [])
    return figure


def _message(first: ReviewMaps, others: Sequence[Shown], other_seed: Shown | None) -> str:
    """Whether the batch size or the seed moves more of the attention."""
    far = [100 * moved(first.weights[-1], review.weights[-1]) for _, review in others]
    said = (
        f"another batch size moves {max(far):.0f}%"
        if len(far) == 1
        else f"other batch sizes move up to {max(far):.0f}%"
    )
    if other_seed is None:
        return f"{said} of the attention"
    return f"{said}, another seed {100 * moved(first.weights[-1], other_seed[1].weights[-1]):.0f}%"
