"""A collapse is seen where it can be seen."""

import pytest

from batchscope.statistics.health import constant_prediction


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
