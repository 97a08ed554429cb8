"""What was measured inside the models, as tables: attention and gradient noise."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean

import pandas as pd

from batchscope.errors import counted
from batchscope.insight.records import AttentionMeasures, LayerMeasures
from batchscope.report.catalogue import attention_cells
from batchscope.report.spec import ReportSpec
from batchscope.report.table import Table, groups, labels


def attention_table(spec: ReportSpec, measures: Mapping[str, AttentionMeasures]) -> Table | None:
    """Measures of the last layer over batch sizes, averaged over the reviews shown; None if no model gives any.

    ``measures`` maps a run to what its attention stage wrote.
    """
    columns = ["model", "#batch size", "#entropy", "#largest weight", "#on special tokens", "#on itself"]
    rows, count = [], 0
    for model in spec.model_names:
        for cell in attention_cells(spec, model):
            last = [review["layers"][-1] for review in measures[cell.run]["reviews"] if review["layers"]]
            if last:
                count = len(last)
                rows.append([model, f"{cell.batch:,}", *(f"{value:.3f}" for value in _means(last))])
    note = "Last layer, mean over its rows, heads and the reviews shown. Entropy over that of uniform attention to the "
    note += f"allowed keys: 1 is uniform. {counted(count, 'review')} can illustrate, but not measure a difference."
    return Table(columns, rows, note) if rows else None


def _means(layers: Sequence[LayerMeasures]) -> list[float]:
    """Mean over reviews of each measure of a layer, in the order of the table's columns."""
    return [
        mean(layer["entropy"] for layer in layers),
        mean(layer["largest_weight"] for layer in layers),
        mean(layer["special_share"] for layer in layers),
        mean(layer["diagonal_share"] for layer in layers),
    ]


def noise_table(summary: pd.DataFrame) -> Table:
    """|G|², S and B = S/|G|² of every model, policy, budget and batch size in first and last epoch, over the seeds."""
    columns = [*labels(summary), "#updates used"]
    columns += [f"#{name}, {epoch} epoch" for epoch in ("first", "last") for name in ("|G|²", "S", "B", "95% interval")]
    rows = []
    for first, group in groups(summary):
        (row,) = group.to_dict("records")
        shown = [*first, f"{row['updates_used']:,}"]
        for epoch in ("first", "last"):
            shown += [_number(row[f"{epoch}_{name}"]) for name in ("gradient_square", "noise_trace")]
            scale = row[f"{epoch}_noise_scale"]
            shown += ["–" if pd.isna(scale) else f"{scale:,.0f}", _interval(row, f"{epoch}_noise_scale")]
        rows.append(shown)
    note = "|G|² and S averaged over the updates of the epoch and over seeds, then divided. An update of one "
    note += "micro-batch has no estimate. A dash: no update has one, or the averaged |G|² is not above zero. Interval: "
    note += (
        "jackknife over blocks of updates; it has no upper end where |G|² is not told from zero, and a dash where the "
    )
    note += "epoch has too few updates."
    return Table(columns, rows, note)


def _interval(row: Mapping[str, float], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if pd.isna(low):
        return "–"
    return f"above {low:,.0f}" if math.isinf(high) else f"{low:,.0f} to {high:,.0f}"


def _number(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.3g}"
