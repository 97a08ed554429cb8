"""The statistics behind the tables: intervals, paired tests and their correction. Pure."""

import math
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import binomtest

NORMAL_975 = 1.959963984540054


def wilson_interval(accuracy: float, examples: int) -> tuple[float, float]:
    """95% score interval of a proportion (Wilson 1927): within [0, 1] and sound near its ends."""
    z2 = NORMAL_975**2 / examples
    centre = (accuracy + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * accuracy * (1 - accuracy) + z2**2 / 4) / (1 + z2)
    return max(0.0, centre - half), min(1.0, centre + half)


def binomial_standard_error(accuracy: float, examples: int) -> float:
    """Standard error of a proportion of ``examples`` independent ones."""
    return math.sqrt(accuracy * (1 - accuracy) / examples)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p of McNemar's test (1947): the discordant pairs against a fair coin; 1 if there are none."""
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def holm(p_values: dict[Any, float]) -> dict[Any, float]:
    """Step-down correction of a family of p-values (Holm 1979), each adjusted value at most 1."""
    adjusted, running = {}, 0.0
    for rank, key in enumerate(sorted(p_values, key=lambda k: p_values[k])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[key]))
        adjusted[key] = running
    return adjusted


def batch_size_contrasts(cells: list[dict[str, Any]], test_correct: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Every pair of batch sizes within a model, policy and seed, compared on the same test reviews.

    ``test_correct`` maps a run to booleans ``[N]``, in one order of the reviews for all runs of the study. Differences
    are larger minus smaller batch, in points (percent). Two standard errors: that of an unpaired difference of two
    binomials, and the paired one from the discordant reviews. Holm's family holds each pair of runs once, so cells
    that read the same two runs do not pay twice.
    """
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["model"], cell["policy"], cell["seed"]), []).append(cell)
    rows, family = [], {}
    for (model, policy, seed), members in groups.items():
        for small, large in combinations(sorted(members, key=lambda cell: cell["batch"]), 2):
            pair = (small["run"], large["run"])
            compared = _compare(test_correct[small["run"]], test_correct[large["run"]])
            family[pair] = compared["mcnemar_p"]
            labels = {"model": model, "lr_policy": policy, "seed": seed}
            batches = {"smaller_batch": small["batch"], "larger_batch": large["batch"]}
            rows.append((pair, labels | batches | compared))
    adjusted = holm(family)
    return [row | {"mcnemar_p_holm": adjusted[pair], "comparisons": len(family)} for pair, row in rows]


def _compare(smaller: np.ndarray, larger: np.ndarray) -> dict[str, Any]:
    n = len(smaller)
    correct = int(smaller.sum()), int(larger.sum())
    accuracy = correct[0] / n, correct[1] / n
    only_smaller, only_larger = int((smaller & ~larger).sum()), int((larger & ~smaller).sum())
    discordant, net = only_smaller + only_larger, only_larger - only_smaller
    return {
        "n": n,
        "smaller_accuracy": accuracy[0],
        "larger_accuracy": accuracy[1],
        "difference_points": 100 * net / n,
        "standard_error_points": 100 * math.hypot(*(binomial_standard_error(value, n) for value in accuracy)),
        "paired_standard_error_points": 100 * math.sqrt(discordant - net**2 / n) / n,
        "only_smaller_correct": only_smaller,
        "only_larger_correct": only_larger,
        "mcnemar_p": mcnemar_exact(only_smaller, only_larger),
    }
