"""Macro-F1 and its jackknife equal scikit-learn's, with several and unbalanced classes."""

import numpy as np
import pytest
from sklearn.metrics import f1_score
from slow_statistics import reference_jackknife

from batchscope.statistics.crossed import moments
from batchscope.statistics.macro_f1 import pseudo_values


def said(classes: int, shares: list[float], reviews: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels in these shares, and predictions of which about 70% are right."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, reviews, p=shares)
    wrong = rng.random(reviews) < 0.3
    return labels, np.where(wrong, rng.integers(0, classes, reviews), labels)


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.95, 0.05], [0.7, 0.2, 0.08, 0.02]], ids=str)
def test_macro_f1_and_its_pseudo_values_are_scikit_learns(shares: list[float]) -> None:
    labels, predictions = said(len(shares), shares)
    value, pseudo = pseudo_values(labels, predictions, len(shares))
    assert value == pytest.approx(f1_score(labels, predictions, average="macro"), abs=1e-12)
    n = len(labels)
    expected = n * value - (n - 1) * reference_jackknife(labels, predictions)
    assert pseudo.tolist() == pytest.approx(expected.tolist(), abs=1e-9)


def test_the_standard_error_of_a_run_is_what_other_reviews_show() -> None:
    """SD of macro-F1 over 400 test sets against the jackknife's standard error from one."""
    shares = [0.8, 0.15, 0.05]
    values = [pseudo_values(*said(3, shares, 800, seed), 3)[0] for seed in range(400)]
    labels, predictions = said(3, shares, 800, 1000)
    value, pseudo = pseudo_values(labels, predictions, 3)
    error = np.sqrt(float(moments(pseudo[None], [value]).variance) / 800)
    assert error == pytest.approx(np.std(values), rel=0.2)
