"""Figures of the attention over many reviews: divergence, classes of keys, sinks, entropy and distance, by layer.

Global layers have filled marks, layers with a sliding window hollow ones. No line joins the two kinds and no mean mixes
them: a query of a sliding layer has fewer keys to choose from.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.typing import LineStyleType

from batchscope.report.calibration import rows_of, runs_of
from batchscope.report.catalogue import OVER_REVIEWS, suffix
from batchscope.report.findings import read_csv
from batchscope.report.maps import sentence_figure
from batchscope.report.spec import FiguresSpec
from batchscope.report.style import INK, MUTED, PAPER, batch_colours, batch_key, frame, plain_log

KEYS = {
    "cls": "[CLS] or <s>",
    "sep": "[SEP] or </s>",
    "punctuation": "punctuation",
    "function": "function words",
    "content": "content words",
    "rest": "rest of words",
}
"""Class of keys → what it is called."""
REMOVED = {"sink": "the sinks", "special tokens": "special tokens", "random key": "random keys"}
"""What an ablation removes → what it is called."""
EVEN = 1.1
"""Up to this lift the attention to a class counts as even in a title."""
SINK_RATE = "sink_rate_"
EPSILON = "0.3"
SLIDING: LineStyleType = (0, (2.5, 1.5))
KINDS: dict[str, dict[str, Any]] = {
    "between_batch_sizes": {"label": "two batch sizes, same seed", "marker": "s", "linestyle": "-", "color": INK},
    "between_seeds": {"label": "two seeds, same batch size", "marker": "o", "linestyle": (0, (5, 2)), "color": INK},
    "from_initial": {"label": "a run and its start", "marker": "^", "linestyle": (0, (1.5, 1.5)), "color": MUTED},
}
"""Column of a divergence → how it looks."""
MOST_POLICIES = 6


class AttentionTables(NamedTuple):
    """What was measured of the attention over many reviews."""

    heads: pd.DataFrame
    """One row per run and head."""
    layers: pd.DataFrame
    """One row per model, LR policy, budget and layer: divergences and their ratio."""
    ratios: pd.DataFrame
    """The same over all global and over all sliding layers; or the reason why there is none."""
    ablation: pd.DataFrame
    """One row per run and ablation; or the reason why there is none."""

    @classmethod
    def read(cls, tables: Path) -> "AttentionTables":
        """The tables in a folder. Raises FileNotFoundError if one is missing."""
        names = ("attention_heads", "divergence_layers", "divergence_ratio", "ablation")
        return cls(*(read_csv(tables, name) for name in names))

    def of(self, model: str, budget: str) -> "AttentionTables":
        """The rows of one model and budget."""
        return AttentionTables(*(part[(part.model == model) & (part.budget == budget)] for part in self))

    @property
    def reason(self) -> str | None:
        """Why a model gives no attention; for the rows of one model."""
        return None if "layer" in self.heads and self.heads.layer.notna().any() else self.heads.reason.iloc[0]


def attention_figures(spec: FiguresSpec, tables: Path) -> dict[str, Figure]:
    """Name → figure of every model and budget; a sentence in place of each for a model without attention."""
    read, drawn = AttentionTables.read(tables), {}
    for title, model, budget in rows_of(spec):
        mine, part = read.of(model, budget), spec.of_budget(budget)
        for name, draw in zip(OVER_REVIEWS, DRAWN, strict=True):
            reason = mine.reason
            figure = (
                draw(part, mine, model, title) if reason is None else sentence_figure(f"{title}: no attention", reason)
            )
            drawn[f"{name}_{model}{suffix(spec, budget)}"] = figure
    return drawn


# --------------------------------------------------------------------------------------------------------- divergence


def verdict(ratios: pd.DataFrame) -> str | None:
    """`more than`, `less than` or `no less and no more than`, where all intervals of the ratios agree; else None."""
    known = ratios.dropna(subset=["low", "high"]) if "low" in ratios else ratios.iloc[:0]
    if known.empty:
        return None
    if (known.low > 1).all():
        return "more than"
    if (known.high < 1).all():
        return "less than"
    return "neither" if ((known.low <= 1) & (known.high >= 1)).all() else "mixed"


VERDICTS = {
    "more than": "another batch size changes the attention more than another seed does",
    "less than": "another batch size changes the attention less than another seed does",
    "neither": "batch size and seed change the attention alike, as far as can be told",
    "mixed": "whether the batch size or the seed changes the attention more depends on policy or layers",
    None: "how far training moved the attention; batch size and seed cannot be compared",
}


def divergence_figure(spec: FiguresSpec, tables: AttentionTables, model: str, title: str) -> Figure:
    """Divergences of two runs by layer, and below the ratio of batch sizes to seeds; a column per LR policy."""
    policies = list(dict.fromkeys(tables.layers.lr_policy))
    shown = policies[:MOST_POLICIES]
    figure = Figure(figsize=(max(10.2, 4.3 * len(shown)), 6.4))
    axes = figure.subplots(2, len(shown), squeeze=False, sharex=True, sharey="row", height_ratios=[1.35, 1])
    for (above, below), policy in zip(axes.T, shown, strict=True):
        rows = tables.layers[tables.layers.lr_policy == policy]
        for column, look in KINDS.items():
            for part, sliding in _kinds(rows):
                _line(above, part.layer, part[column], sliding=sliding, **look)
        _ratio(below, rows)
        above.set_title(f"{policy} LR policy\n{ratio_in_brief(tables.ratios[tables.ratios.lr_policy == policy])}")
        above.set_yscale("log")
        plain_log(above.yaxis)
        below.set_xlabel("layer")
        below.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes[0, 0].set_ylabel("Jensen–Shannon divergence, bits")
    axes[1, 0].set_ylabel("batch sizes ÷ seeds")
    reviews = int(tables.layers.reviews.max()) if tables.layers.reviews.notna().any() else 0
    note = "Above: how different the attention of two runs is on the same text: 0 bits is equal, 1 bit has no key in "
    note += "common; mean over queries, heads and pairs of runs. Below: the divergence between batch sizes over that "
    note += "between seeds; at the line (1) another batch size changes a layer as much as another seed. "
    note += f"Bars: 95% interval over resampled seeds and {reviews:,} test {spec.words[1]}. " if reviews else ""
    note += _further(policies)
    frame(figure, f"{title}: {VERDICTS[verdict(tables.ratios)]}", note, [*_kind_key(), *_window_key(tables.layers)])
    return figure


def ratio_in_brief(ratios: pd.DataFrame) -> str:
    """`1.42× (1.20 to 1.66)` of a policy's rows; a line for the global and one for the sliding layers."""
    parts = []
    for row in ratios.itertuples():
        name = f"{row.attention} layers " if len(ratios) > 1 else ""
        value = "no ratio" if pd.isna(row.ratio) else f"{row.ratio:.2f}×"
        parts.append(name + value + ("" if pd.isna(row.low) else f" ({row.low:.2f} to {row.high:.2f})"))
    return "\n".join(parts)


def _ratio(axis: Axes, rows: pd.DataFrame) -> None:
    axis.axhline(1, color=MUTED, linewidth=1, zorder=1)
    if not rows.ratio.notna().any():
        axis.text(0.5, 0.62, "needs two batch sizes and two seeds", transform=axis.transAxes, ha="center", color=MUTED)
    for part, sliding in _kinds(rows.dropna(subset=["ratio"])):
        known = part.dropna(subset=["low", "high"])
        axis.vlines(known.layer, known.low, known.high, color=INK, linewidth=1.1, alpha=0.6)
        _line(axis, part.layer, part.ratio, INK, sliding, marker="s", linestyle="none")
    axis.set_yscale("log")
    plain_log(axis.yaxis)


def _kind_key() -> list[Artist]:
    return [Line2D([], [], markersize=4.5, linewidth=1, **look) for look in KINDS.values()]


# ----------------------------------------------------------------------------------------------------------- measures


def keys_figure(spec: FiguresSpec, tables: AttentionTables, model: str, title: str) -> Figure:
    """Attention to each class of keys over that of uniform attention, by layer; a row per LR policy."""
    means = layer_means(tables.heads)
    there = [name for name in KEYS if means[f"lift_{name}"].notna().any()]
    axes, figure = _panels(spec, len(there), width=2.35)
    for row, policy in zip(axes, spec.policy_names, strict=True):
        for axis, name in zip(row, there, strict=True):
            _over_batch_sizes(axis, spec, means, model, policy, f"lift_{name}")
            axis.axhline(1, color=MUTED, linewidth=1, zorder=1)
            axis.set_yscale("log")
            plain_log(axis.yaxis)
        row[0].set_ylabel(f"{policy} LR policy\ntimes the even share")
    for axis, name in zip(axes[0], there, strict=True):
        axis.set_title(KEYS[name])
    note = "Share of the attention that a class of keys receives, over its share if each query spread its attention "
    note += f"evenly over the keys that it may see (line at 1); mean over heads. {_reviews(tables, spec)} "
    note += "Rest of words: word pieces after a word's first, and other special tokens."
    frame(figure, f"{title}: {strongest_class(means)}", note + _seeds(spec), _key(spec, means))
    return figure


def strongest_class(means: pd.DataFrame) -> str:
    """The class of keys with the highest lift over the global layers (all, if none is global), and function words."""
    rows = means[means.window.isna()] if means.window.isna().any() else means
    lifts = {name: rows[f"lift_{name}"].mean() for name in KEYS if rows[f"lift_{name}"].notna().any()}
    first = max(lifts, key=lambda name: lifts[name])
    if lifts[first] < EVEN:
        return f"no class of keys gets more than {EVEN:g}× its even share of the attention"
    said = f"{KEYS[first]} get {lifts[first]:.1f}× their even share of the attention"
    others = [name for name in ("function", "content") if name in lifts and name != first]
    return said + "".join(f", {KEYS[name]} {lifts[name]:.1f}×" for name in others)


def sinks_figure(spec: FiguresSpec, tables: AttentionTables, model: str, title: str) -> Figure:
    """Heads with an attention sink by layer, and over the threshold; a row per LR policy."""
    means = layer_means(tables.heads)
    epsilons = {name: float(name.removeprefix(SINK_RATE)) for name in means if name.startswith(SINK_RATE)}
    kinds = [sliding for _, sliding in _kinds(means)]
    axes, figure = _panels(spec, 1 + len(kinds), width=3.3)
    for row, policy in zip(axes, spec.policy_names, strict=True):
        _over_batch_sizes(row[0], spec, means, model, policy, SINK_RATE + EPSILON)
        for axis, wanted in zip(row[1:], kinds, strict=True):
            for size, colour in batch_colours(spec).items():
                mine = runs_of(spec, means[means.window.notna() == wanted], model, policy, size)
                values = [mine[name].mean() for name in epsilons]
                _line(axis, list(epsilons.values()), values, colour, wanted)
            axis.xaxis.set_major_locator(MaxNLocator(len(epsilons)))
        for axis in row:
            axis.set_ylim(-0.03, 1.03)
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))
        row[0].set_ylabel(f"{policy} LR policy\nheads × {spec.words[1]} with a sink")
    axes[0, 0].set_title(f"by layer, threshold {EPSILON}")
    for axis, wanted in zip(axes[0, 1:], kinds, strict=True):
        axis.set_title(("sliding" if wanted else "global") + " layers, over the threshold")
    for axis in axes[-1, 1:]:
        axis.set_xlabel("threshold ε")
    mean = means[means.window.isna() == means.window.isna().any()][SINK_RATE + EPSILON].mean()
    note = "A head has a sink in a text if some key receives, on average over the queries that may see it, more than "
    note += f"the threshold ε of their attention (after Gu et al. 2024). {_reviews(tables, spec)}"
    said = (
        f"{100 * mean:.0f}% of the {'global' if means.window.isna().any() else 'sliding'} heads have a sink in a text"
    )
    frame(figure, f"{title}: {said}", note + _seeds(spec), _key(spec, means))
    return figure


def layers_figure(spec: FiguresSpec, tables: AttentionTables, model: str, title: str) -> Figure:
    """Entropy and distance of the attention by layer; a row per LR policy."""
    means = layer_means(tables.heads)
    axes, figure = _panels(spec, 2, width=4.6)
    for row, policy in zip(axes, spec.policy_names, strict=True):
        for axis, column in zip(row, ("entropy", "distance"), strict=True):
            _over_batch_sizes(axis, spec, means, model, policy, column)
        even = means.groupby("layer").even_distance.mean()
        row[1].plot(even.index, even, color=MUTED, marker="_", markersize=9, linestyle="none", zorder=1)
        row[1].set_ylim(0, None)
        row[0].set_ylim(0, 1.02)
        row[0].set_ylabel(f"{policy} LR policy\nentropy ÷ that of even attention")
        row[1].set_ylabel("mean distance, tokens")
    axes[0, 0].set_title("how spread out the attention is")
    axes[0, 1].set_title("how far it reaches")
    note = (
        "Left: 1 is even attention to all allowed keys, 0 is one key. Right: distance between query and key, weighted "
    )
    note += (
        f"by attention; grey dashes: the same for even attention. Mean over queries and heads. {_reviews(tables, spec)}"
    )
    frame(figure, f"{title}: {_spread_in_words(spec, means, model)}", note + _seeds(spec), _key(spec, means))
    return figure


def _spread_in_words(spec: FiguresSpec, means: pd.DataFrame, model: str) -> str:
    """How the entropy of the global layers differs from the smallest to the largest batch size."""
    sizes, rows = sorted(spec.batch_sizes), means[means.window.isna() == means.window.isna().any()]
    said = []
    for policy in spec.policy_names:
        ends = [runs_of(spec, rows, model, policy, size).entropy.mean() for size in (sizes[0], sizes[-1])]
        if np.isfinite(ends).all():
            said.append(f"{ends[0]:.2f} → {ends[1]:.2f} ({policy})" if len(sizes) > 1 else f"{ends[0]:.2f} ({policy})")
    span = f" from batch size {sizes[0]:,} to {sizes[-1]:,}" if len(sizes) > 1 else ""
    return f"entropy{span}: {', '.join(said[:2])}"


def ablation_figure(spec: FiguresSpec, tables: AttentionTables, model: str, title: str) -> Figure:
    """Change of the margin without some keys, against the batch size: a row per LR policy, a column per ablation."""
    if "removed" not in tables.ablation or not (tables.ablation.removed != "").any():
        return sentence_figure(f"{title}: no ablation", str(tables.ablation.reason.iloc[0]))
    rows, colours = tables.ablation[tables.ablation.layer_set == "all"], batch_colours(spec)
    sizes, wide = sorted(colours), len(spec.policy_names)
    figure = Figure(figsize=(9.6, 1.2 + 2.35 * wide))
    axes = figure.subplots(wide, len(REMOVED), squeeze=False, sharex=True, sharey="row")
    for row, policy in zip(axes, spec.policy_names, strict=True):
        for axis, removed in zip(row, REMOVED, strict=True):
            for place, size in enumerate(sizes):
                cell = runs_of(spec, rows[rows.removed == removed], model, policy, size)
                _changes(axis, cell, place, colours[size])
            axis.axhline(0, color=MUTED, linewidth=1, zorder=1)
            axis.set_xticks(range(len(sizes)), [f"{size:,}" for size in sizes])
            axis.set_xlim(-0.6, len(sizes) - 0.4)
            axis.grid(axis="x", visible=False)
        row[0].set_ylabel(f"{policy} LR policy\nchange of the margin")
    for axis, name in zip(axes[0], REMOVED.values(), strict=True):
        axis.set_title(f"without {name}", pad=17)
    for axis in axes[-1]:
        axis.set_xlabel("target batch size")
    note = (
        "Margin: logit of the label minus the largest other one. Below 0 the model is less sure of the label than with "
    )
    note += f"all keys. Dots: mean over {int(rows.reviews.max()):,} test {spec.words[1]} of a run; thick bars hold the "
    note += (
        "middle half of them, thin bars 90%; percentages: predictions that change. A sink is the key of a head that "
    )
    note += f"gets more than {EPSILON} of the attention on average; its column is removed from all layers and the rows "
    note += "are renormalised. A random key is removed from the same heads."
    frame(figure, f"{title}: {ablation_in_brief(rows)}", note, batch_key(colours))
    return figure


def ablation_in_brief(rows: pd.DataFrame) -> str:
    """Predictions that change without the sinks, and without as many random keys."""
    shares = [rows[rows.removed == name] for name in ("sink", "random key")]
    if not shares[0].with_sink.any():
        return f"no head has a sink above {EPSILON}, so none was removed"
    sink, other = (100 * part.flips.sum() / part.reviews.sum() for part in shares)
    return f"without its sinks {sink:.1f}% of the predictions change, without random keys {other:.1f}%"


def _changes(axis: Axes, cell: pd.DataFrame, place: float, colour: str) -> None:
    """The runs of one cell side by side."""
    step = min(0.2, 0.7 / max(1, len(cell)))
    for number, run in enumerate(cell.itertuples()):
        x = place + (number - (len(cell) - 1) / 2) * step
        axis.vlines(x, run.change_q05, run.change_q95, color=colour, linewidth=0.9, zorder=2)
        axis.vlines(x, run.change_q25, run.change_q75, color=colour, linewidth=3.2, alpha=0.55, zorder=2)
        axis.plot(x, run.change, "o", color=colour, markersize=4.6, markeredgecolor=PAPER, zorder=4)
    if len(cell):
        share = f"{100 * cell.flips.sum() / cell.reviews.sum():.1f}%"
        axis.annotate(
            share, (place, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", color=MUTED, size=7.5
        )


DRAWN = (divergence_figure, keys_figure, sinks_figure, layers_figure, ablation_figure)


# ------------------------------------------------------------------------------------------------------------- shared


def layer_means(heads: pd.DataFrame) -> pd.DataFrame:
    """Means over the heads of every run and layer."""
    numbers = [name for name in heads if heads[name].dtype.kind in "fi" and name not in ("head", "window")]
    keys = ["run", "layer"]
    means = heads.groupby(keys, sort=False)[[name for name in numbers if name not in keys]].mean()
    return means.join(heads.groupby(keys, sort=False).window.first()).reset_index()


def _kinds(rows: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, bool]]:
    """The rows of the global layers and those of the sliding ones, and whether they are sliding."""
    for sliding in (False, True):
        part = rows[rows.window.notna() == sliding]
        if len(part):
            yield part, sliding


def _line(axis: Axes, x: Any, y: Any, color: str, sliding: bool, **look: Any) -> None:
    drawn: dict[str, Any] = {
        "marker": "o",
        "markersize": 4.2,
        "linewidth": 1.2,
        "linestyle": SLIDING if sliding else "-",
    } | look
    axis.plot(x, y, color=color, markerfacecolor=PAPER if sliding else color, markeredgewidth=1.1, zorder=3, **drawn)


def _over_batch_sizes(axis: Axes, spec: FiguresSpec, means: pd.DataFrame, model: str, policy: str, column: str) -> None:
    """A line per batch size over the layers: mean over seeds, each seed thin behind it."""
    for size, colour in batch_colours(spec).items():
        for part, sliding in _kinds(runs_of(spec, means, model, policy, size)):
            runs = list(part.groupby("run"))
            for _, one in runs if len(runs) > 1 else ():
                axis.plot(one.layer, one[column], color=colour, linewidth=0.6, alpha=0.4, zorder=2)
            mean = part.groupby("layer")[column].mean()
            _line(axis, mean.index, mean, colour, sliding)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))


def _panels(spec: FiguresSpec, columns: int, width: float) -> tuple[Any, Figure]:
    """Axes ``[policies, columns]`` and their figure."""
    rows = len(spec.policy_names)
    figure = Figure(figsize=(max(8.6, 0.7 + width * columns), 1.2 + 2.35 * rows))
    axes = figure.subplots(rows, columns, squeeze=False, sharey="row" if columns > 2 else False)
    for axis in axes[-1]:
        axis.set_xlabel("layer")
    return axes, figure


def _key(spec: FiguresSpec, means: pd.DataFrame) -> Sequence[Artist]:
    return [*batch_key(batch_colours(spec)), *_window_key(means)]


def _window_key(rows: pd.DataFrame) -> list[Artist]:
    """The key of global and sliding layers, where there are sliding ones."""
    if not rows.window.notna().any():
        return []
    look: dict[str, Any] = {"color": MUTED, "marker": "o", "markersize": 4.5}
    width = int(rows.window.max())
    return [
        Line2D([], [], label="global layer", linestyle="-", **look),
        Line2D([], [], label=f"sliding layer (±{width})", linestyle=SLIDING, markerfacecolor=PAPER, **look),
    ]


def _reviews(tables: AttentionTables, spec: FiguresSpec) -> str:
    """`1,000 test reviews.`"""
    return f"{int(tables.heads.reviews.max()):,} test {spec.words[1]}."


def _seeds(spec: FiguresSpec) -> str:
    return " Thick lines: mean over seeds; thin lines: seeds." if len(spec.seeds) > 1 else f" Seed {spec.seeds[0]}."


def _further(policies: Sequence[str]) -> str:
    """The policies that a figure has no room for."""
    further = policies[MOST_POLICIES:]
    return f"Not drawn, but in tables/divergence_layers.csv: {', '.join(further)}." if further else ""
