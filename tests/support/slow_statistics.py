"""Slow and obvious versions of what the statistics compute."""

import itertools
import math
import statistics

import numpy as np
from sklearn.metrics import f1_score


def reference_mcnemar(only_first: int, only_second: int) -> float:
    """Add up the probability of every split of the discordant reviews that is no likelier than the one seen."""
    n = only_first + only_second
    ways = [math.comb(n, k) for k in range(n + 1)]
    return sum(w for w in ways if w <= ways[only_first]) / 2**n


def reference_holm(p_values: list[float]) -> list[float]:
    """The definition: the largest (m − j + 1) p_(j) over all smaller or equal p-values, at most 1."""
    ordered = sorted(p_values)
    steps = [min(1.0, (len(ordered) - j) * p) for j, p in enumerate(ordered)]
    return [max(steps[: ordered.index(p) + 1]) for p in p_values]


def reference_crossed(d: np.ndarray) -> tuple[float, float, float, float]:
    """Difference, SE, df and mean covariance of ``d`` ``[J, N]``: with every pair of seeds in turn."""
    seeds, reviews = d.shape
    means = [sum(row) / reviews for row in d.tolist()]
    seed_variance = statistics.variance(means)
    pairs = [
        sum((x - means[j]) * (y - means[k]) for x, y in zip(d[j].tolist(), d[k].tolist(), strict=True)) / (reviews - 1)
        for j in range(seeds)
        for k in range(seeds)
        if j != k
    ]
    covariance = statistics.fmean(pairs)
    if seed_variance < 1e-18:  # equal by chance: the variance that the reviews alone give
        within = statistics.fmean(statistics.variance(row) for row in d.tolist())
        seed_variance = max(within - max(covariance, 0), 1 / reviews) / reviews
    square = seed_variance / seeds + max(covariance, 0) / reviews
    df = seeds - 1 if seeds == 2 else square**2 / ((seed_variance / seeds) ** 2 / (seeds - 1))
    return statistics.fmean(means), math.sqrt(square), df, covariance


def reference_omnibus(correct: np.ndarray) -> tuple[float, float]:
    """F and its denominator's df of ``correct`` ``[K, J, N]``, with every pair of runs in turn."""
    levels, seeds, reviews = correct.shape
    accuracy = correct.mean(2)
    covariance = np.cov(correct.reshape(levels * seeds, reviews).astype(float))
    same, other, levels_of_seed = [], [], []
    for (k, j), (m, i) in itertools.product(itertools.product(range(levels), range(seeds)), repeat=2):
        if j != i:
            (same if k == m else other).append(covariance[k * seeds + j, m * seeds + i])
        elif k != m:
            levels_of_seed.append(covariance[k * seeds + j, m * seeds + i])
    grand = accuracy.mean()
    between = seeds * sum((accuracy[k].mean() - grand) ** 2 for k in range(levels)) / (levels - 1)
    residuals = [
        (accuracy[k, j] - accuracy[k].mean() - accuracy[:, j].mean() + grand) ** 2
        for k in range(levels)
        for j in range(seeds)
    ]
    free = (levels - 1) * (seeds - 1)
    within = sum(residuals) / free
    if within < 1e-18:  # equal by chance: the variance that the reviews alone give
        alone = np.trace(covariance) / len(covariance) - np.mean(levels_of_seed)
        within = max(alone - max(np.mean(same) - np.mean(other), 0), 0.5 / reviews) / reviews
    noise = within + max(seeds * (np.mean(same) - np.mean(other)), 0) / reviews
    return between / noise, free if seeds == 2 else noise**2 / (within**2 / free)


def reference_jackknife(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Macro-F1 without each review in turn, by scikit-learn."""
    keep = ~np.eye(len(labels), dtype=bool)
    return np.array([f1_score(labels[one], predictions[one], average="macro", zero_division=0) for one in keep])
