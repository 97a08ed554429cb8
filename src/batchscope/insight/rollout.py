"""Attention rollout: how much of each input token reaches the model's pooled output through attention. Pure NumPy."""

import numpy as np
from numpy.typing import NDArray


def rollout(weights: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rollout ``[n, n]`` of maps ``[layers, n, n]``, heads averaged: the product of (A + I) / 2 over the layers.

    Abnar & Zuidema 2020, arXiv 2005.00928: I stands for the residual connection. Rows are output positions, columns
    input tokens; each row sums to 1.
    """
    n = weights.shape[-1]
    reached = np.eye(n)
    for layer in weights.astype(np.float64):
        reached = (layer + np.eye(n)) / 2 @ reached
    return reached


def pooled_rollout(weights: NDArray[np.floating]) -> NDArray[np.float64]:
    """Share ``[n]`` of each input token in the mean over positions, which is what the classifier's head reads."""
    shares: NDArray[np.float64] = rollout(weights).mean(0)
    return shares
