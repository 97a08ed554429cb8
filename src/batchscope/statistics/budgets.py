"""Where two budgets rank the target batch sizes differently: an equal number of epochs is not one of updates. Pure."""

from itertools import combinations
from typing import NamedTuple

import pandas as pd


class Flip(NamedTuple):
    """Two target batch sizes of one model and LR policy, of which each leads under one of two budgets."""

    model: str
    lr_policy: str
    smaller_batch: int
    larger_batch: int
    budget_of_smaller: str
    """The budget under which the smaller batch size has the higher mean test accuracy."""
    smaller_lead_points: float
    """By how much, in points."""
    budget_of_larger: str
    """The budget under which the larger batch size has it."""
    larger_lead_points: float


def ranking_flips(summary: pd.DataFrame) -> list[Flip]:
    """Every pair of batch sizes that two budgets rank differently, by mean test accuracy over the seeds.

    ``summary`` has one row per model, batch size, policy and budget, with ``test_accuracy_mean``. Equal means have no
    order, so they flip nothing. It describes the means: whether a difference is established is the contrasts' answer.
    """
    flips = []
    for (model, policy), rows in summary.groupby(["model", "lr_policy"], sort=False):
        means = {(row.budget, row.target_batch_size): row.test_accuracy_mean for row in rows.itertuples()}
        sizes, budgets = sorted(set(rows.target_batch_size)), list(dict.fromkeys(rows.budget))
        for small, large in combinations(sizes, 2):
            leads = {name: 100 * (means[name, small] - means[name, large]) for name in budgets}
            for one, other in combinations(budgets, 2):
                if leads[one] * leads[other] < 0:
                    small_leads, large_leads = (one, other) if leads[one] > 0 else (other, one)
                    ends = small_leads, leads[small_leads], large_leads, -leads[large_leads]
                    flips.append(Flip(str(model), str(policy), int(small), int(large), *ends))
    return flips
