"""Budgets that rank two batch sizes differently are found, and only those."""

import pandas as pd
import pytest

from batchscope.statistics.budgets import ranking_flips


def summary(means: dict[tuple[str, int], float], policy: str = "constant") -> pd.DataFrame:
    """Mean test accuracies by budget and batch size."""
    rows = [
        {
            "model": "bert",
            "lr_policy": policy,
            "budget": budget,
            "target_batch_size": batch,
            "test_accuracy_mean": value,
        }
        for (budget, batch), value in means.items()
    ]
    return pd.DataFrame(rows)


def test_a_flip_names_who_leads_where_and_by_how_much() -> None:
    means = {("epochs", 64): 0.90, ("epochs", 256): 0.88, ("updates", 64): 0.90, ("updates", 256): 0.93}
    (flip,) = ranking_flips(summary(means))
    assert (flip.smaller_batch, flip.larger_batch) == (64, 256)
    assert (flip.budget_of_smaller, flip.budget_of_larger) == ("epochs", "updates")
    assert (flip.smaller_lead_points, flip.larger_lead_points) == pytest.approx((2.0, 3.0))


@pytest.mark.parametrize("last", [0.90, 0.85])
def test_equal_means_and_equal_orders_flip_nothing(last: float) -> None:
    means = {("epochs", 64): 0.90, ("epochs", 256): 0.88, ("updates", 64): 0.90, ("updates", 256): last}
    assert ranking_flips(summary(means)) == []


def test_policies_are_not_compared_with_each_other() -> None:
    one = summary({("epochs", 64): 0.9, ("epochs", 256): 0.8, ("updates", 64): 0.9, ("updates", 256): 0.8})
    other = summary({("epochs", 64): 0.8, ("epochs", 256): 0.9, ("updates", 64): 0.8, ("updates", 256): 0.9}, "sqrt")
    assert ranking_flips(pd.concat([one, other])) == []
