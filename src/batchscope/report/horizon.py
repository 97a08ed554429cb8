"""Adam's horizon as a table of the page; the numbers and the warnings come from ``statistics``."""

from collections.abc import Sequence

from batchscope.report.table import Table, together
from batchscope.statistics.horizon import Horizon


def horizon_table(audit: Sequence[Horizon]) -> Table:
    """One row per cell: refreshes and half-life of the second moment, ΣLR, and what the scaling rule leaves out."""
    several = len({one.budget for one in audit}) > 1
    columns = ["model", "LR policy", *(["budget"] if several else []), "#batch size", "#updates", "#β₂", "#refreshes"]
    columns += ["#half-life, epochs", "#filled", "#ΣLR ratio", "scaling"]
    rows = [
        [one.model, one.lr_policy, *([one.budget] if several else []), f"{one.target_batch_size:,}"]
        + [f"{one.updates:,}", f"{one.beta2:.6g}", f"{one.refreshes:.2g}", f"{one.half_life_epochs:.3g}"]
        + [f"{100 * one.filled:.0f}%", f"{one.lr_sum_ratio:.3g}", one.rule]
        for one in together(audit)
    ]
    note = "Refreshes: (1 − β₂) · updates, how often the second moment's averaging window fits into the run. "
    note += "Half-life: after so many epochs a gradient counts half. Filled: 1 − β₂^updates, the weight of the run's "
    note += "gradients in that average. ΣLR ratio and scaling: against the smallest batch size of the same model, LR "
    note += "policy and budget; κ is the ratio of the batch sizes."
    return Table(columns, rows, note)
