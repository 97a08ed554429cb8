"""The file that the evaluation of a run writes: ``metrics.json``."""

from typing import TypedDict


class Scores(TypedDict):
    """How well a model does on some examples. Counts are exact; means are divided once."""

    examples: int
    """Number of examples."""
    correct: int
    """Number of examples whose most likely class is the label."""
    accuracy: float
    """``correct / examples``."""
    loss: float
    """Mean cross entropy in nats."""


class Measures(Scores):
    """All metrics of one checkpoint on one split."""

    nll: float
    """Mean negative log-likelihood of the true class in nats. Equals ``loss`` while training smooths no labels."""
    brier: float
    """Brier score: squared error of the probabilities, summed over the classes, mean over the examples."""
    ece: float
    """Expected calibration error over 15 equal bins of confidence."""
    macro_f1: float
    """Mean F1 over the classes that occur among labels or predictions."""
    recall: list[float | None]
    """Per class, in label order: share of its examples that are predicted as it. None for a class without examples."""
    confusion: list[list[int]]
    """Number of examples by label (row) and prediction (column), classes in label order."""


class CheckpointMeasures(TypedDict):
    """The metrics of both checkpoints on one split."""

    best: Measures
    """Of the epoch with the best validation accuracy."""
    last: Measures
    """Of the last epoch."""


class ComputedWith(TypedDict):
    """What the predictions were computed with: perhaps another machine than the one that trained the run."""

    device: str
    """Name of the hardware."""
    precision: str
    """``float32`` or ``bfloat16``."""


class Metrics(TypedDict):
    """``metrics.json`` of a run."""

    computed_with: ComputedWith
    """Device and precision of the predictions."""
    validation: CheckpointMeasures
    test: CheckpointMeasures
