"""Everything the result of one training depends on, besides its tokens."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainSpec:
    """One training, resolved: no policy name, no path, no setting that leaves the mathematics alone.

    ``model`` holds ``checkpoint``, ``revision`` and ``content`` (a folder's hash), or ``architecture`` and
    ``config``. ``budget`` holds one of ``epochs``, ``updates`` and ``samples``. ``naive_physical_batch_size`` is
    set for the tail policy ``naive`` alone, the one whose gradients depend on the micro-batch size.
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
    tail: str = "exact"
    keep: str = "best"
    naive_physical_batch_size: int | None = field(default=None)

    @classmethod
    def from_json(cls, text: str) -> "TrainSpec":
        """The inverse of ``canonical_json(spec.to_dict())``."""
        return cls(**json.loads(text))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for canonical JSON, without the fields that are unset."""
        return {name: value for name, value in asdict(self).items() if value is not None}
