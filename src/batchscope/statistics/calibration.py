"""Do a classifier's probabilities mean what they say? Calibration error, Brier decomposition, temperature. Pure.

Logits are ``[N, C]``, labels ``[N]``; everything is computed in float64. The confidence of a prediction is the
probability of its class.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from batchscope.evaluation.counts import log_softmax

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 100.0
NORMAL_975 = 1.959963984540054
Numbers = NDArray[np.float64]


class BrierParts(NamedTuple):
    """Brier score = reliability − resolution + uncertainty + within_bins. Sums over the classes, means over examples.

    Murphy 1973; ``within_bins`` is what binning adds to it (Stephenson et al. 2008, "Two extra components"): the
    variance of the probabilities within the bins minus twice their covariance with the outcomes. The sum is exact.
    """

    reliability: float
    """Squared distance between a bin's mean probability and its share of the class: 0 is calibrated."""
    resolution: float
    """Squared distance between a bin's share of the class and the share overall: higher separates better."""
    uncertainty: float
    """Of the labels alone."""
    within_bins: float


class CalibrationError(NamedTuple):
    """Expected calibration error, and what chance alone gives."""

    ece: float
    """Σ over bins |correct − Σ confidence| / N (Guo et al. 2017, arXiv 1706.04599), over bins of equal mass."""
    ece_by_chance: float
    """Its mean if the model were calibrated: with few examples a bin, a perfect model has an error too."""
    ece_by_chance_high: float
    """97.5% quantile of the same."""


def equal_mass_bins(values: NDArray[np.floating], bins: int) -> NDArray[np.int64]:
    """The bin ``[N]`` of each value ``[N]``, counted from 0: about N / ``bins`` values each, in ascending order.

    Equal values share a bin, so the bins do not depend on the order of the examples; there may be fewer than ``bins``.
    """
    ordered = np.sort(values)
    starts = ordered[[len(values) * number // bins for number in range(1, bins)]]
    place = np.searchsorted(np.unique(starts), values, side="right")
    return np.unique(place, return_inverse=True)[1].astype(np.int64)


def calibration_error(confidence: Numbers, correct: NDArray[np.bool_], bins: int) -> CalibrationError:
    """Calibration error of confidences ``[N]`` over bins of equal mass.

    The error by chance takes the number of correct predictions of a bin as normal around Σ confidence, with variance
    Σ confidence (1 − confidence): the mean of its absolute value is √(2 variance / π).
    """
    place = equal_mass_bins(confidence, bins)
    gaps = np.bincount(place, weights=correct - confidence)
    variance = np.bincount(place, weights=confidence * (1 - confidence))
    mean = float(np.sqrt(2 * variance / np.pi).sum()) / len(correct)
    spread = float(np.sqrt((1 - 2 / np.pi) * variance.sum())) / len(correct)
    return CalibrationError(float(np.abs(gaps).sum()) / len(correct), mean, mean + NORMAL_975 * spread)


def brier_parts(probabilities: Numbers, labels: NDArray[np.integer], bins: int) -> BrierParts:
    """Decomposition of the Brier score of probabilities ``[N, C]``, each class over bins of its own of equal mass."""
    parts = [_brier_parts_of(column, labels == name, bins) for name, column in enumerate(probabilities.T)]
    return BrierParts(*(sum(values) for values in zip(*parts, strict=True)))


def _brier_parts_of(probability: Numbers, outcome: NDArray[np.bool_], bins: int) -> BrierParts:
    place = equal_mass_bins(probability, bins)
    count = np.bincount(place)
    mean = np.bincount(place, weights=probability) / count
    share = np.bincount(place, weights=outcome) / count
    overall, n = outcome.mean(), len(outcome)
    aside = probability - mean[place]  # sums to zero in each bin, so the outcome's own mean drops out
    within = float((aside**2 - 2 * aside * outcome).sum()) / n
    return BrierParts(
        reliability=float((count * (mean - share) ** 2).sum()) / n,
        resolution=float((count * (share - overall) ** 2).sum()) / n,
        uncertainty=float(overall * (1 - overall)),
        within_bins=within,
    )


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """The T that minimises the negative log-likelihood of softmax(logits / T) (Guo et al. 2017, arXiv 1706.04599).

    The likelihood is concave in 1 / T, so the root of its slope is the optimum. Where there is none between
    ``LOWEST_TEMPERATURE`` (every prediction right) and ``HIGHEST_TEMPERATURE`` (worse than guessing), the bound is
    returned; 1 for logits that are all equal.
    """
    scores = logits.astype(np.float64) - logits.max(1, keepdims=True)
    of_label = scores[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        """Derivative of the mean negative log-likelihood by 1 / T."""
        weights = np.exp(inverse * scores)
        expected = (weights * scores).sum(1) / weights.sum(1)
        return float((expected - of_label).mean())

    coldest, hottest = 1 / LOWEST_TEMPERATURE, 1 / HIGHEST_TEMPERATURE
    if not scores.any():
        return 1.0
    if slope(hottest) >= 0:
        return HIGHEST_TEMPERATURE
    if slope(coldest) <= 0:
        return LOWEST_TEMPERATURE
    return 1 / float(brentq(slope, hottest, coldest, xtol=1e-12))


def probabilities_at(logits: NDArray[np.floating], temperature: float = 1.0) -> Numbers:
    """softmax(logits / temperature), ``[N, C]``."""
    return np.exp(log_softmax(logits.astype(np.float64) / temperature))


def negative_log_likelihood(logits: NDArray[np.floating], labels: NDArray[np.integer], temperature: float) -> float:
    """Mean negative log-likelihood of the labels in nats."""
    chosen = log_softmax(logits.astype(np.float64) / temperature)[np.arange(len(labels)), labels]
    return -float(chosen.sum()) / len(labels)


class ReliabilityBin(NamedTuple):
    """One bin of a reliability diagram."""

    predictions: int
    correct: int
    mean_confidence: float
    lowest_confidence: float
    highest_confidence: float


def reliability_diagram(confidence: Numbers, correct: NDArray[np.bool_], bins: int) -> list[ReliabilityBin]:
    """The bins of equal mass of confidences ``[N]``, from the least confident."""
    place = equal_mass_bins(confidence, bins)
    return [
        ReliabilityBin(
            int(inside.sum()),
            int(correct[inside].sum()),
            float(confidence[inside].sum()) / int(inside.sum()),
            float(confidence[inside].min()),
            float(confidence[inside].max()),
        )
        for inside in (place == number for number in range(int(place.max()) + 1))
    ]
