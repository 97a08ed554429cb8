"""The figure of the gradient noise scale of a study's runs."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from batchscope.report.curves import draw_faint, runs_of, thousands
from batchscope.report.numbers import listed
from batchscope.report.spec import FiguresSpec
from batchscope.report.style import INK, MUTED, batch_colours, batch_key, frame
from batchscope.statistics.noise_scale import batches_without_estimate, noise_span, running_noise_scale

ARROW = 1.5
"""Length of an arrow, as a ratio."""
TOP = 1e12
"""Above every axis: where an interval without an upper end is drawn to."""


def noise_scale_figure(
    spec: FiguresSpec, history: pd.DataFrame, model: str, title: str, branches: pd.DataFrame | None = None
) -> Figure:
    """B_simple of a model under one budget against samples seen, a panel per LR policy; dashed: target batch sizes.

    ``branches`` is ``tables/branches.csv``: the measured critical batch sizes are diamonds, with an arrow where it is
    at least that.
    """
    policies, colours = spec.policy_names, batch_colours(spec)
    updates = history[history.kind == "update"]
    span, rows = noise_span(updates, max(colours)), updates[updates.model == model]
    by_run = dict(list(rows.groupby("run")))
    figure = Figure(figsize=(max(5.6, 4.7 * len(policies)), 4.3))
    axes = figure.subplots(1, len(policies), sharey=True, squeeze=False)[0]
    lowest, highest = min(colours), max(colours)
    for axis, policy in zip(axes, policies, strict=True):
        for batch, colour in colours.items():
            axis.axhline(batch, color=colour, linewidth=1, linestyle=(0, (4, 3)), alpha=0.8, zorder=1)
            runs = runs_of(spec, model, policy, batch)
            if len(runs) > 1:
                curves = (running_noise_scale(by_run[run], span) for run in runs)
                draw_faint(axis, ((curve.samples, curve.noise_scale) for curve in curves), colour)
            mean = running_noise_scale(pd.concat([by_run[run] for run in runs]), span)
            sound = mean.noise_scale[mean.noise_scale > 0]
            # An interval without an upper end reaches the top of the panel.
            axis.fill_between(mean.samples, mean.low, mean.high.clip(upper=TOP), color=colour, alpha=0.12, linewidth=0)
            lowest, highest = min([lowest, *sound]), max([highest, *sound])
            marker = "o" if len(sound) == 1 else ""
            axis.plot(mean.samples, mean.noise_scale, color=colour, linewidth=1.7, marker=marker, markersize=4)
            measured = _draw_critical(axis, branches, runs, colour)
            lowest, highest = min([lowest, *measured]), max([highest, *measured])
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
    seeds = spec.seeds
    who = f"Strong line: {len(seeds)} seeds together, faint: each seed" if len(seeds) > 1 else f"Seed {seeds[0]}"
    note = f"S and |G|² averaged over the latest {span:,} samples, then divided. {who}. "
    note += "Dashed: the target batch sizes. A gap: |G|² is not a standard error above zero. Band: 95% jackknife "
    note += "interval. The critical batch size can be far above B (Merrill et al. 2025)."
    if branches is not None:
        note += " Diamonds: the critical batch size that branches measured; with an arrow, it is at least this."
    lacking = batches_without_estimate(rows)
    if lacking and spec.measures_noise:
        note += f" No estimate at {listed(lacking)}: a window of one micro-batch has none."
    frame(figure, f"{title}: gradient noise scale by target batch size", note, batch_key(colours))
    return figure


def _draw_critical(axis: Axes, branches: pd.DataFrame | None, runs: list[str], colour: str) -> list[float]:
    """The measured critical batch sizes of some runs; the values that the axis must show."""
    if branches is None:
        return []
    shown: list[float] = []
    for row in branches[branches.critical & branches.run.isin(runs)].itertuples():
        x, y = float(row.samples), float(row.branch_batch_size)
        axis.plot(x, y, "D", color=colour, markersize=6.5, markeredgecolor=INK, markeredgewidth=0.9, zorder=5)
        shown.append(y)
        if not row.reached:
            arrow = {"arrowstyle": "->", "color": INK, "linewidth": 1.1}
            axis.annotate("", (x, ARROW * y), (x, y), arrowprops=arrow, zorder=4)
            shown.append(ARROW * y)
    return shown
