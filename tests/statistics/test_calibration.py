"""Calibration: identities, closed forms and slow references; chance and temperature against known truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import halfnorm
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from batchscope.evaluation.metrics import measure
from batchscope.statistics.calibration import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    brier_parts,
    calibration_error,
    equal_mass_bins,
    fit_temperature,
    negative_log_likelihood,
    probabilities_at,
    reliability_diagram,
)


def drawn(classes: int, count: int = 400, sharpness: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from softmax(logits / sharpness): calibrated at the temperature ``sharpness``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, classes)) * 2 * sharpness
    chances = probabilities_at(logits, sharpness)
    labels = (chances.cumsum(1) < rng.random((count, 1))).sum(1).clip(0, classes - 1)
    return logits, labels


def reference_brier_parts(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> list[float]:
    """Class by class, bin by bin, example by example."""
    totals = [0.0] * 4
    n, classes = probabilities.shape
    for name in range(classes):
        outcome = [float(label == name) for label in labels]
        overall = sum(outcome) / n
        place = equal_mass_bins(probabilities[:, name], bins)
        totals[2] += overall * (1 - overall)
        for number in set(place.tolist()):
            inside = [i for i in range(n) if place[i] == number]
            mean = sum(probabilities[i, name] for i in inside) / len(inside)
            share = sum(outcome[i] for i in inside) / len(inside)
            totals[0] += len(inside) * (mean - share) ** 2 / n
            totals[1] += len(inside) * (share - overall) ** 2 / n
            for i in inside:
                aside = probabilities[i, name] - mean
                totals[3] += (aside**2 - 2 * aside * (outcome[i] - share)) / n
    return totals


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_parts_of_the_brier_score_are_the_reference_and_add_up_to_it(classes: int) -> None:
    logits, labels = drawn(classes)
    parts = brier_parts(probabilities_at(logits), labels, 11)
    assert parts == pytest.approx(reference_brier_parts(probabilities_at(logits), labels, 11), abs=1e-12)
    whole = parts.reliability - parts.resolution + parts.uncertainty + parts.within_bins
    assert whole == pytest.approx(measure(logits, labels)["brier"], abs=1e-12)


def test_the_brier_parts_of_known_forecasts() -> None:
    labels = np.array([0, 1] * 50)
    certain = brier_parts(np.eye(2)[labels], labels, 10)
    assert certain == pytest.approx((0, 0.5, 0.5, 0))
    even = brier_parts(np.full((100, 2), 0.5), labels, 10)
    assert even == pytest.approx((0, 0, 0.5, 0))
    wrong = brier_parts(np.eye(2)[1 - labels], labels, 10)
    assert wrong == pytest.approx((2, 0.5, 0.5, 0))


@given(st.lists(st.sampled_from([0.1, 0.5, 0.9, 0.97, 1.0]), min_size=1, max_size=60), st.integers(2, 20))
def test_bins_keep_equal_values_together_in_order_and_depend_on_no_order(values: list[float], bins: int) -> None:
    array = np.array(values)
    place = equal_mass_bins(array, bins)
    assert sorted(set(place.tolist())) == list(range(place.max() + 1)) and place.max() < bins
    order = np.random.default_rng(0).permutation(len(array))
    assert np.array_equal(equal_mass_bins(array[order], bins), place[order])
    for one in range(len(array)):
        same = array == array[one]
        assert len(set(place[same])) == 1
        assert (place[array > array[one]] >= place[one]).all()


def test_distinct_values_fill_bins_of_equal_mass() -> None:
    counts = np.bincount(equal_mass_bins(np.random.default_rng(0).random(1003), 15))
    assert len(counts) == 15 and set(counts.tolist()) <= {66, 67}


def test_the_diagram_and_the_error_are_those_of_scikit_learn() -> None:
    logits, labels = drawn(3, 600)
    confidence, correct = probabilities_at(logits).max(1), logits.argmax(1) == labels
    diagram = reliability_diagram(confidence, correct, 12)
    share, mean = calibration_curve(correct, confidence, n_bins=12, strategy="quantile")
    assert [found.correct / found.predictions for found in diagram] == pytest.approx(share.tolist())
    assert [found.mean_confidence for found in diagram] == pytest.approx(mean.tolist())
    ends = [(found.lowest_confidence, found.highest_confidence) for found in diagram]
    place = equal_mass_bins(confidence, 12)
    assert ends == [(confidence[place == bin].min(), confidence[place == bin].max()) for bin in range(12)]
    by_hand = sum(abs(found.correct - found.mean_confidence * found.predictions) for found in diagram) / 600
    assert calibration_error(confidence, correct, 12).ece == pytest.approx(by_hand)


def test_the_error_by_chance_is_that_of_calibrated_models() -> None:
    rng = np.random.default_rng(5)
    confidence = rng.uniform(0.5, 0.99, 2000)
    found = [calibration_error(confidence, rng.random(2000) < confidence, 15) for _ in range(300)]
    simulated = np.array([one.ece for one in found])
    assert simulated.mean() == pytest.approx(found[0].ece_by_chance, rel=0.05)
    assert 0.95 <= (simulated < found[0].ece_by_chance_high).mean() <= 1.0


def test_in_bins_of_one_confidence_the_error_by_chance_is_half_normal() -> None:
    """Two bins of 50 calibrated predictions each; errors of independent bins add up, and so do their variances."""
    errors = [halfnorm(scale=np.sqrt(50 * p * (1 - p))) for p in (0.6, 0.9)]
    found = calibration_error(np.repeat([0.6, 0.9], 50), np.ones(100, dtype=bool), 2)
    assert found.ece == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)
    assert found.ece_by_chance == pytest.approx(sum(one.mean() for one in errors) / 100)
    spread = np.sqrt(sum(one.var() for one in errors)) / 100
    assert (found.ece_by_chance_high - found.ece_by_chance) / spread == pytest.approx(1.959964, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("truth", [0.6, 1.0, 2.5])
def test_the_temperature_is_the_minimum_and_finds_the_truth(classes: int, truth: float) -> None:
    logits, labels = drawn(classes, 20_000, truth)
    fitted = fit_temperature(logits, labels)
    searched = minimize_scalar(
        lambda value: log_loss(labels, probabilities_at(logits, value)), bounds=(0.1, 10), method="bounded"
    )
    assert fitted == pytest.approx(searched.x, rel=1e-3)
    assert fitted == pytest.approx(truth, rel=0.06)
    at_fit = negative_log_likelihood(logits, labels, fitted)
    assert at_fit == pytest.approx(log_loss(labels, probabilities_at(logits, fitted)))
    assert at_fit <= negative_log_likelihood(logits, labels, 1.0)


@pytest.mark.parametrize(
    ("optimum", "fitted"), [(0.007, 0.01), (0.012, 0.012), (3.0, 3.0), (70.0, 70.0), (101.0, 100.0), (150.0, 100.0)]
)
def test_the_temperature_of_one_margin_is_known_and_kept_within_the_bounds(optimum: float, fitted: float) -> None:
    """Three of four labels agree with a margin m: the probability is ¾ at T = m / log 3."""
    logits = np.tile([optimum * np.log(3), 0.0], (4, 1))
    assert fit_temperature(logits, np.array([0, 0, 1, 0])) == pytest.approx(fitted, rel=1e-6)


def test_temperatures_without_an_optimum_are_the_bounds() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 3.0]])
    assert fit_temperature(logits, np.array([0, 1])) == LOWEST_TEMPERATURE
    assert fit_temperature(logits, np.array([1, 0])) == HIGHEST_TEMPERATURE
    assert fit_temperature(np.full((2, 2), 7.0), np.array([1, 0])) == 1.0
