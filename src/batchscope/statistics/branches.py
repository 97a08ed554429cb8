"""From the branches of a run to the measured critical batch size (Merrill et al. 2025, arXiv 2505.23971). Pure."""

import math
from typing import NamedTuple

import numpy as np

from batchscope.training.records import Branch, BranchPoint


class BranchLoss(NamedTuple):
    """The smoothed training loss of one branch beside that of factor 1 on the same examples."""

    factor: int
    target_batch_size: int
    learning_rate: float
    """Of its last update."""
    updates: int
    diverged: bool
    loss: float
    """Mean cross entropy in nats over the end of the branch, each example before the update that it is part of."""
    loss_of_run: float
    """The same of factor 1."""
    difference: float
    """``loss − loss_of_run``; infinite for a branch that diverged."""
    standard_error: float
    """Of the difference, from its scatter over the windows of this branch; NaN for fewer than two."""
    windows: int
    """Updates of this branch over which the losses are averaged."""
    within: bool
    """Whether the difference is at most the tolerance."""


class CriticalBatch(NamedTuple):
    """What the branches of one point say."""

    losses: list[BranchLoss]
    factor: int
    """The largest factor whose difference is at most the tolerance; 1 if it is none but the run's own."""
    target_batch_size: int
    """``factor`` × the run's batch size: the measured critical batch size."""
    reached: bool
    """Whether a larger branch is worse by more than the tolerance; else the critical batch size is at least this."""


def critical_batch(point: BranchPoint, smoothing: float, tolerance: float) -> CriticalBatch:
    """Compare the branches of a point over the last ``smoothing`` share of their samples.

    All branches see the same examples in the same order, and a window of a larger branch is a union of windows of
    factor 1, so both losses are means over exactly the same examples. A window counts if it lies wholly in that share,
    the last one always.
    """
    one = point["branches"][0]
    assert one["factor"] == 1
    losses = [_loss(point["samples"], branch, one, smoothing, tolerance) for branch in point["branches"]]
    best = max((loss for loss in losses if loss.within), key=lambda loss: loss.factor)
    return CriticalBatch(losses, best.factor, best.target_batch_size, best.factor < losses[-1].factor)


def _loss(begun: int, branch: Branch, one: Branch, smoothing: float, tolerance: float) -> BranchLoss:
    updates, end = branch["updates"], one["updates"][-1]["samples"]
    plain = BranchLoss(
        factor=branch["factor"],
        target_batch_size=branch["target_batch_size"],
        learning_rate=updates[-1]["lr"] if updates else math.nan,
        updates=len(updates),
        diverged=branch["diverged"],
        loss=math.nan,
        loss_of_run=math.nan,
        difference=math.inf,
        standard_error=math.nan,
        windows=0,
        within=False,
    )
    if branch["diverged"]:
        return plain
    since = end - smoothing * (end - begun)
    counted = [update for update in updates if update["samples"] - update["examples"] >= since] or updates[-1:]
    # Summed loss of factor 1 up to a number of samples, where each of its windows ends.
    at = np.array([begun, *(update["samples"] for update in one["updates"])])
    summed = np.cumsum([0.0, *(update["loss"] * update["examples"] for update in one["updates"])])
    examples = np.array([update["examples"] for update in counted])
    ours = np.array([update["loss"] * update["examples"] for update in counted])
    ends = np.searchsorted(at, [update["samples"] for update in counted])
    starts = np.searchsorted(at, [update["samples"] - update["examples"] for update in counted])
    theirs = summed[ends] - summed[starts]
    difference, windows = float((ours - theirs).sum() / examples.sum()), len(counted)
    scatter = ((ours - theirs - difference * examples) ** 2).sum() * windows / max(1, windows - 1)
    return plain._replace(
        loss=float(ours.sum() / examples.sum()),
        loss_of_run=float(theirs.sum() / examples.sum()),
        difference=difference,
        standard_error=float(np.sqrt(scatter) / examples.sum()) if windows > 1 else math.nan,
        windows=windows,
        within=difference <= tolerance,
    )
