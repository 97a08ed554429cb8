"""The budgets of a study side by side, and where they rank the batch sizes differently."""

from typing import NamedTuple

import pandas as pd

from batchscope.errors import counted
from batchscope.report.numbers import listed, mean_sd
from batchscope.report.sections import marks, marks_in_words
from batchscope.report.spec import ReportSpec
from batchscope.report.table import Table
from batchscope.statistics.budgets import Flip, ranking_flips

MOST_FLIPS = 6


class BudgetsSection(NamedTuple):
    """A table and what to read from it."""

    table: Table
    sentences: list[str]


def budgets_section(spec: ReportSpec, summary: pd.DataFrame) -> BudgetsSection | None:
    """Updates and test accuracy of every cell under each budget; None for a study of one budget."""
    if not spec.several_budgets:
        return None
    columns = ["model", "LR policy", "#batch size"]
    for name in spec.budget_names:
        columns += [f"#{name}: updates", f"#{name}: test accuracy"]
    found = {
        (row["model"], row["lr_policy"], row["target_batch_size"], row["budget"]): row
        for row in summary.to_dict("records")
    }
    rows = []
    for model in spec.model_names:
        for policy in spec.policy_names:
            for batch in spec.batch_sizes:
                row = [model, policy, f"{batch:,}"]
                for name in spec.budget_names:
                    cell = found[model, policy, batch, name]
                    shown = mean_sd(cell["test_accuracy_mean"], cell["test_accuracy_sd"])
                    row += [f"{cell['updates']:,}", shown + marks(cell)]
                rows.append(row)
    lengths = listed(f"{name}: {spec.budgets[name].in_words}" for name in spec.budget_names)
    caption = f"{lengths}. Read down a column to compare batch sizes under one budget."
    return BudgetsSection(Table(columns, rows, caption + marks_in_words(summary)), flips_in_words(summary))


def flips_in_words(summary: pd.DataFrame) -> list[str]:
    """Where the ranking of batch sizes depends on the budget, as sentences."""
    flips = ranking_flips(summary)
    if not flips:
        return ["The budgets rank the batch sizes alike, by mean test accuracy."]
    shown = [_flip(flip) for flip in flips[:MOST_FLIPS]]
    more = f"; and {len(flips) - MOST_FLIPS} more" if len(flips) > MOST_FLIPS else ""
    return [
        f"The ranking of batch sizes depends on the budget in {counted(len(flips), 'pair')}: {'; '.join(shown)}{more}.",
        "These are means. Whether such a difference is more than chance is the question of the contrasts below.",
    ]


def _flip(flip: Flip) -> str:
    """One flip in words."""
    return (
        f"{flip.model}, {flip.lr_policy} LR policy: {flip.smaller_batch:,} is ahead of {flip.larger_batch:,} by "
        f"{flip.smaller_lead_points:.2f} points under {flip.budget_of_smaller}, and behind it by "
        f"{flip.larger_lead_points:.2f} points under {flip.budget_of_larger}"
    )
