"""The gradient noise scale of a study's runs: running averages and their figure."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from batchscope.report.catalogue import names_in_order
from batchscope.report.curves import runs_of, thousands
from batchscope.report.numbers import listed
from batchscope.report.style import MUTED, batch_colours, batch_key, frame

SHARE_OF_RUN = 0.1
FEWEST_WINDOWS = 8
ESTIMATES = ["gradient_square", "noise_trace"]


def noise_span(spec: dict[str, Any], history: pd.DataFrame) -> int:
    """Samples that a running average covers: a tenth of the longest run, or 8 of the largest windows if more."""
    return max(round(SHARE_OF_RUN * history.samples.max()), FEWEST_WINDOWS * max(names_in_order(spec, "batch")))


def running_noise_scale(updates: pd.DataFrame, samples: int) -> pd.DataFrame:
    """B_simple = S/|G|² over the latest updates that hold at least ``samples`` examples, from the first full one on.

    Takes one row per update, or one per update and seed. Numerator and denominator are averaged first, over the rows
    that have an estimate, and divided once. Where the averaged |G|² is not a standard error above zero the scale is
    larger than the updates can tell: NaN. Returns ``samples, noise_scale``.
    """
    known = updates.dropna(subset=ESTIMATES).sort_values("samples", kind="stable")
    at, square, trace = (known[name].to_numpy() for name in ("samples", *ESTIMATES))
    points = np.unique(updates.samples.to_numpy())
    boundaries = np.concatenate([[0], points])
    span = min(samples, int(points[-1]))
    ends = points[points >= span]
    starts = boundaries[np.searchsorted(boundaries, ends - span, side="right") - 1]
    parts = zip(np.searchsorted(at, starts, "right"), np.searchsorted(at, ends, "right"), strict=True)
    scale = [_ratio(square[start:stop], trace[start:stop]) for start, stop in parts]
    return pd.DataFrame({"samples": ends, "noise_scale": scale})


def _ratio(square: np.ndarray, trace: np.ndarray) -> float:
    if not len(square):
        return np.nan
    error = square.std(ddof=1) / np.sqrt(len(square)) if len(square) > 1 else 0.0
    return float(trace.mean() / square.mean()) if square.mean() > error else np.nan


def batches_without_estimate(rows: pd.DataFrame) -> list[str]:
    """Target batch sizes none of whose updates has an estimate: their windows are one micro-batch."""
    known = rows.groupby("target_batch_size").noise_trace.count()
    return [f"{batch:,}" for batch in known.index[known == 0]]


def noise_scale_figure(spec: dict[str, Any], history: pd.DataFrame, model: str) -> Figure:
    """B_simple of a model against samples seen, a panel per LR policy; the target batch sizes as dashed lines."""
    policies, colours = names_in_order(spec, "policy"), batch_colours(spec)
    updates = history[history.kind == "update"]
    span, rows = noise_span(spec, updates), updates[updates.model == model]
    figure = Figure(figsize=(max(5.6, 4.7 * len(policies)), 4.3))
    axes = figure.subplots(1, len(policies), sharey=True, squeeze=False)[0]
    lowest, highest = min(colours), max(colours)
    for axis, policy in zip(axes, policies, strict=True):
        for batch, colour in colours.items():
            axis.axhline(batch, color=colour, linewidth=1, linestyle=(0, (4, 3)), alpha=0.8, zorder=1)
            runs = runs_of(spec, model, policy, batch)
            seeds = [running_noise_scale(rows[rows.run == run], span) for run in runs]
            if len(runs) > 1:
                for curve in seeds:
                    axis.plot(curve.samples, curve.noise_scale, color=colour, alpha=0.3, linewidth=0.8)
            mean = running_noise_scale(rows[rows.run.isin(runs)], span)
            sound = mean.noise_scale[mean.noise_scale > 0]
            lowest, highest = min([lowest, *sound]), max([highest, *sound])
            marker = "o" if len(sound) == 1 else ""
            axis.plot(mean.samples, mean.noise_scale, color=colour, linewidth=1.7, marker=marker, markersize=4)
        axis.set_title(f"{policy} LR policy")
        axis.set_yscale("log")
        axis.set_xlabel("samples seen")
        axis.set_xlim(0, float(rows.samples.max()) * 1.02)
        axis.xaxis.set_major_locator(MaxNLocator(6))
        axis.xaxis.set_major_formatter(FuncFormatter(thousands))
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if highest / lowest < 200 else (1,), numticks=12))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.tick_params(axis="y", which="minor", length=0, color=MUTED)
    axes[0].set_ylim(lowest / 1.6, highest * 1.6)
    axes[0].set_ylabel("noise scale B = S / |G|², examples")
    seeds = names_in_order(spec, "seed")
    who = f"Strong line: {len(seeds)} seeds together, faint: each seed" if len(seeds) > 1 else f"Seed {seeds[0]}"
    note = f"S and |G|² averaged over the latest {span:,} samples, then divided. {who}. "
    note += "Dashed: the target batch sizes. A gap: |G|² is not a standard error above zero."
    lacking = batches_without_estimate(rows)
    if lacking:
        note += f" No estimate at {listed(lacking)}: a window of one micro-batch has none."
    frame(figure, f"{model}: gradient noise scale by target batch size", note, batch_key(colours))
    return figure
