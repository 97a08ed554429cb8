"""Slow and obvious versions of what the statistics compute."""

import math


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
