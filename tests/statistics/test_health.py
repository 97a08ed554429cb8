"""A collapse is seen where it can be seen."""

import pandas as pd
import pytest

from batchscope.statistics.health import constant_prediction, faulty_runs


@pytest.mark.parametrize(
    ("confusion", "predicted"),
    [
        ([[0, 5], [0, 7]], 1),
        ([[5, 0, 0], [3, 0, 0], [1, 0, 0]], 0),
        ([[4, 1], [0, 7]], None),
        ([[0, 1], [1, 0]], None),
        ([[0, 0], [0, 7]], None),
    ],
    ids=["all second class", "three classes", "both predicted", "all wrong", "one label alone"],
)
def test_a_collapsed_model_predicts_one_class_for_several_labels(
    confusion: list[list[int]], predicted: int | None
) -> None:
    assert constant_prediction(confusion) == predicted


def test_the_runs_that_did_not_learn_are_named_with_every_reason() -> None:
    rows = [("fine", None, None, False), ("best", "pos", "pos", False), ("last", None, "neg", False)]
    rows += [("lost", None, None, True), ("both", "pos", None, True)]
    columns = ["run", "constant_prediction", "constant_prediction_last", "diverged"]
    assert faulty_runs(pd.DataFrame(rows, columns=columns)) == {
        "best": "predicts pos for every test review",
        "last": "predicts neg for every test review after its last epoch",
        "lost": "its training loss ended above that of guessing",
        "both": "predicts pos for every test review and its training loss ended above that of guessing",
    }
