"""Budgets that rank two batch sizes differently are found, and only those."""

import pandas as pd
import pytest

from batchscope.statistics.budgets import Flip, ranking_flips


def summary(means: dict[tuple[str, int], float], policy: str = "constant", model: str = "bert") -> pd.DataFrame:
    """Mean test accuracies by budget and batch size."""
    rows = [
        {
            "model": model,
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


def test_the_budget_of_the_smaller_batch_may_come_second_and_lead_by_little() -> None:
    means = {("updates", 64): 0.900, ("updates", 256): 0.903, ("epochs", 64): 0.905, ("epochs", 256): 0.900}
    (flip,) = ranking_flips(summary(means))
    assert (flip.budget_of_smaller, flip.budget_of_larger) == ("epochs", "updates")
    assert (flip.smaller_lead_points, flip.larger_lead_points) == pytest.approx((0.5, 0.3))
    (back,) = ranking_flips(summary(dict(reversed(means.items()))))
    assert back == flip


@pytest.mark.parametrize("last", [0.90, 0.85])
def test_equal_means_and_equal_orders_flip_nothing(last: float) -> None:
    means = {("epochs", 64): 0.90, ("epochs", 256): 0.88, ("updates", 64): 0.90, ("updates", 256): last}
    assert ranking_flips(summary(means)) == []


def test_policies_are_not_compared_with_each_other() -> None:
    one = summary({("epochs", 64): 0.9, ("epochs", 256): 0.8, ("updates", 64): 0.9, ("updates", 256): 0.8})
    other = summary({("epochs", 64): 0.8, ("epochs", 256): 0.9, ("updates", 64): 0.8, ("updates", 256): 0.9}, "sqrt")
    assert ranking_flips(pd.concat([one, other])) == []


def test_all_pairs_of_sizes_and_budgets_flip_model_by_model_in_the_order_of_the_table() -> None:
    means = {("long", 16): 0.90, ("long", 64): 0.85, ("long", 256): 0.80}
    means |= {("short", 256): 0.70, ("short", 64): 0.60, ("short", 16): 0.65, ("middle", 256): 0.5}
    means |= {("middle", 64): 0.5, ("middle", 16): 0.4}
    found = ranking_flips(pd.concat([summary(means, "z", "zebra"), summary(means, "z", "ape")]))
    expected = [  # at 16 against 64 `short` agrees with `long`; 64 and 256 are equal in `middle`
        ((16, 64), ("long", 5), ("middle", 10)),
        ((16, 64), ("short", 5), ("middle", 10)),
        ((16, 256), ("long", 10), ("short", 5)),
        ((16, 256), ("long", 10), ("middle", 10)),
        ((64, 256), ("long", 5), ("short", 10)),
    ]
    assert [one[:5] + one[6:7] for one in found] == [
        (model, "z", *sizes, small[0], large[0]) for model in ("zebra", "ape") for sizes, small, large in expected
    ]
    leads = [lead for one in found for lead in (one.smaller_lead_points, one.larger_lead_points)]
    assert leads == pytest.approx([lead for _, small, large in expected * 2 for lead in (small[1], large[1])])
    assert isinstance(found[0], Flip)
