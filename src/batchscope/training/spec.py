"""Everything the result of one training depends on, besides its tokens."""

from dataclasses import dataclass
from typing import Any, Literal

from batchscope.training.windows import Tail


@dataclass(frozen=True)
class TrainSpec:
    """One training, resolved: no policy name, no path, no setting that leaves the mathematics alone.

    ``model`` holds ``checkpoint``, ``revision`` and ``content`` (a folder's hash), or ``architecture`` and
    ``config``. ``budget`` holds one of ``epochs``, ``updates`` and ``samples``. ``naive_physical_batch_size`` is
    set for the tail policy ``naive`` alone, the one whose gradients depend on the micro-batch size. ``noise_scale``
    moves no weight, but it adds to the history, which is part of the result; it is unset where it is off.
    ``determinism`` is set for ``strict`` alone: other kernels round differently.
    """

    model: dict[str, Any]
    target_batch_size: int
    learning_rate: float
    seed: int
    budget: dict[str, int]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    precision: str = "auto"
    engine: str = "manual"
    tail: Tail = "exact"
    keep: str = "best"
    naive_physical_batch_size: int | None = None
    noise_scale: Literal["cheap", "full"] | None = None
    determinism: Literal["strict"] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for canonical JSON, without the fields that are unset; the constructor takes them back."""
        return {name: value for name, value in vars(self).items() if value is not None}
