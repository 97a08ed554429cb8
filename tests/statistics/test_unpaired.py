"""Two accuracies on different reviews."""

import numpy as np
import pytest

from batchscope.statistics.unpaired import newcombe_interval


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((48, 80), (56, 70), 0.0524, 0.3339),
        ((3, 10), (9, 10), 0.1705, 0.8090),
        ((2, 7), (6, 7), 0.0582, 0.8062),
        ((0, 20), (0, 10), -0.1611, 0.2775),
        ((0, 10), (10, 10), 0.6075, 1.0),
    ],
)
def test_the_examples_of_the_paper(first: tuple[int, int], second: tuple[int, int], low: float, high: float) -> None:
    """Newcombe 1998, table II, method 10."""
    (a, m), (b, n) = first, second
    assert newcombe_interval(a / m, m, b / n, n) == pytest.approx((low, high), abs=5e-5)
    assert newcombe_interval(b / n, n, a / m, m) == pytest.approx((-high, -low), abs=5e-5)


def test_it_covers_the_truth_as_often_as_it_says() -> None:
    rng, truth = np.random.default_rng(1), (0.90, 0.93)
    drawn = [rng.binomial(300, p, size=1500) / 300 for p in truth]
    intervals = [newcombe_interval(float(a), 300, float(b), 300) for a, b in zip(*drawn, strict=True)]
    covered = np.mean([low <= truth[1] - truth[0] <= high for low, high in intervals])
    assert 0.935 < covered < 0.97
