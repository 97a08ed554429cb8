"""The gradient noise scale from the estimates of single updates: averages first, then one division. Pure."""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from batchscope.report.spec import GridCell
from batchscope.statistics.grid import cells_by
from batchscope.statistics.jackknife import ratio_intervals

SHARE_OF_RUN = 0.1
FEWEST_WINDOWS = 8
ESTIMATES = ["gradient_square", "noise_trace"]


def noise_span(history: pd.DataFrame, largest_batch: int) -> int:
    """Samples that a running average covers: a tenth of the longest run, or 8 of the largest windows if more."""
    return max(round(SHARE_OF_RUN * int(history.samples.max())), FEWEST_WINDOWS * largest_batch)


def running_noise_scale(updates: pd.DataFrame, samples: int) -> pd.DataFrame:
    """B_simple = S/|G|² over the latest updates that hold at least ``samples`` examples, from the first full one on.

    Takes one row per update, or one per update and seed. Numerator and denominator are averaged first, over the rows
    that have an estimate, and divided once. Where the averaged |G|² is not a standard error above zero the scale is
    larger than the updates can tell: NaN. Returns ``samples, noise_scale, low, high``; the last two are its 95%
    jackknife interval over blocks of consecutive updates (``jackknife.ratio_intervals``).
    """
    known = updates.dropna(subset=ESTIMATES).sort_values("samples", kind="stable")
    at, square, trace = (known[name].to_numpy(dtype=np.float64) for name in ("samples", *ESTIMATES))
    points = np.unique(updates.samples.to_numpy())
    boundaries = np.concatenate([[0], points])
    span = min(samples, int(points[-1]))
    ends = points[points >= span]
    starts = boundaries[np.searchsorted(boundaries, ends - span, side="right") - 1]
    begin, end = np.searchsorted(at, starts, "right"), np.searchsorted(at, ends, "right")
    scale = [_ratio(square[start:stop], trace[start:stop]) for start, stop in zip(begin, end, strict=True)]
    low, high = ratio_intervals(trace, square, begin, end)
    return pd.DataFrame({"samples": ends, "noise_scale": scale, "low": low, "high": high})


def _ratio(square: NDArray[np.float64], trace: NDArray[np.float64]) -> float:
    if not len(square):
        return np.nan
    error = square.std(ddof=1) / np.sqrt(len(square)) if len(square) > 1 else 0.0
    return float(trace.mean() / square.mean()) if square.mean() > error else np.nan


def batches_without_estimate(rows: pd.DataFrame) -> list[str]:
    """Target batch sizes none of whose updates has an estimate: their windows are one micro-batch."""
    known = rows.groupby("target_batch_size").noise_trace.count()
    return [f"{batch:,}" for batch in known.index[known == 0]]


def noise_summary(cells: Iterable[GridCell], history: pd.DataFrame) -> pd.DataFrame:
    """|G|², S and B = S/|G|² per model, policy, budget and batch size in the first and last epoch, over all seeds.

    ``updates_used`` is the number of updates with an estimate. A number is missing where no update of the epoch has an
    estimate, and B also where the averaged |G|² is not above zero. ``…_low`` and ``…_high`` are the 95% jackknife
    interval of B over blocks of consecutive updates, those of all seeds together; infinite where |G|² is not told
    from zero, missing where the epoch has fewer updates than blocks.
    """
    rows = []
    for members in cells_by(cells, "model", "policy", "budget", "batch"):
        updates = history[(history.kind == "update") & history.run.isin([cell.run for cell in members])]
        cell = members[0]
        row: dict[str, object] = {"model": cell.model, "lr_policy": cell.policy, "budget": cell.budget}
        row["target_batch_size"] = cell.batch
        row["updates_used"] = int(updates.noise_trace.count())
        for name, epoch in (("first", updates.epoch.min()), ("last", updates.epoch.max())):
            known = updates[updates.epoch == epoch].dropna(subset=ESTIMATES).sort_values("samples", kind="stable")
            squares, traces = (known[estimate].to_numpy(dtype=np.float64) for estimate in ESTIMATES)
            square, trace = (column.mean() if len(column) else math.nan for column in (squares, traces))
            scale = trace / square if square > 0 else math.nan
            low, high = ratio_intervals(traces, squares, np.array([0]), np.array([len(known)]))
            row |= {f"{name}_gradient_square": square, f"{name}_noise_trace": trace, f"{name}_noise_scale": scale}
            row |= {f"{name}_noise_scale_low": low[0], f"{name}_noise_scale_high": high[0]}
        rows.append(row)
    return pd.DataFrame(rows)
