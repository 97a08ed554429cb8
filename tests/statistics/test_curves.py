"""Running means are honest averages."""

import numpy as np
import pandas as pd
import pytest

from batchscope.statistics.curves import running_mean


def reference_running_mean(rows: list[tuple[int, int]], samples: int) -> list[float]:
    """Walk back from every update until enough examples are in hand; (correct, examples) per update."""
    means = []
    for end in range(len(rows)):
        correct = examples = 0
        for start in range(end, -1, -1):
            correct, examples = correct + rows[start][0], examples + rows[start][1]
            if examples >= samples:
                means.append(correct / examples)
                break
    return means


@pytest.mark.parametrize("samples", [1, 16, 50, 64])
def test_running_mean_weighs_every_example_alike(samples: int) -> None:
    sizes = [16, 16, 7, 16, 16, 3, 16]
    correct = [10, 4, 7, 16, 0, 3, 8]
    updates = pd.DataFrame({"update": range(1, 8), "samples": np.cumsum(sizes), "examples": sizes, "correct": correct})
    smooth = running_mean(updates.assign(loss=1 - updates.correct / updates.examples), samples)
    expected = reference_running_mean(list(zip(correct, sizes, strict=True)), samples)
    assert smooth.accuracy.tolist() == pytest.approx(expected)
    assert smooth.loss.tolist() == pytest.approx([1 - value for value in expected])
    full = [number for number, seen in enumerate(np.cumsum(sizes)) if seen >= samples]
    assert smooth["update"].tolist() == [number + 1 for number in full]
    assert smooth.samples.tolist() == [np.cumsum(sizes)[number] for number in full]


def test_running_mean_of_a_run_shorter_than_the_span_is_one_point() -> None:
    updates = pd.DataFrame(
        {"update": [1, 2], "samples": [4, 8], "examples": [4, 4], "correct": [1, 3], "loss": [2.0, 1.0]}
    )
    assert running_mean(updates, 1000).accuracy.tolist() == [0.5]
