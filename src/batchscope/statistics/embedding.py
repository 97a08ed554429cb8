"""How far an embedding can be trusted. Pure."""

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 10
ROWS_AT_ONCE = 256
Numbers = NDArray[np.floating]


def trustworthiness(features: Numbers, places: Numbers, neighbours: int = NEIGHBOURS) -> float:
    """Whether neighbours in the embedding ``places`` ``[P, 2]`` are neighbours among the features ``[P, H]``.

    T = 1 − 2 / (P k (2P − 3k − 1)) · Σ over points and their k nearest in the embedding of max(0, r − k), where r is
    the neighbour's rank by distance among the features (Venna and Kaski 2001). 1 is best. It needs k < P / 2; a larger
    k is lowered.
    Memory: a few hundred rows of distances at a time.
    """
    count = len(features)
    k = min(neighbours, (count - 1) // 2)
    if k < 1:
        return float("nan")
    total = 0.0
    for start in range(0, count, ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, count))
        apart, near = (_distances(values, rows) for values in (features, places))
        own = np.arange(len(rows)), rows
        apart[own] = near[own] = np.inf
        nearest = np.argsort(near, axis=1, kind="stable")[:, :k]
        ranks = np.empty_like(apart, dtype=np.int64)
        np.put_along_axis(ranks, np.argsort(apart, axis=1, kind="stable"), np.arange(1, count + 1)[None], axis=1)
        total += np.maximum(0, np.take_along_axis(ranks, nearest, axis=1) - k).sum()
    return float(1 - total * 2 / (count * k * (2 * count - 3 * k - 1)))


def _distances(values: Numbers, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Squared distances ``[R, P]`` of some points to all."""
    some, every = values[rows].astype(np.float64), values.astype(np.float64)
    squares = (every**2).sum(1)
    return np.asarray(squares[rows][:, None] + squares - 2 * some @ every.T)
