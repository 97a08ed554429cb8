"""The file ``certificates/{model}.json``. Pure, no torch."""

from typing import Any, NotRequired, TypedDict

from batchscope.model.records import LoadingReport


class WindowMeasures(TypedDict):
    """An accumulated gradient against the gradient of the same window as one batch.

    ``null`` is a number that is not finite, or a loss that the method does not log.
    """

    largest_difference: float | None
    """max|a−b| / max|b| over the parameters, a the accumulated gradient, b that of the batch."""
    relative_l2: float | None
    """‖a−b‖ / ‖b‖."""
    norm_ratio: float | None
    """‖a‖ / ‖b‖: 1 is right."""
    cosine: float | None
    """Cosine between a and b."""
    logged_loss: float | None
    """Loss that the method reports for the window."""
    true_loss: float | None
    """Mean cross entropy of the window's examples."""
    bitwise_equal: NotRequired[bool]
    """Accelerate engine: whether its gradient equals the manual engine's bit for bit."""


class EngineRow(TypedDict):
    """One of our engines in one precision."""

    engine: str
    """``manual``, ``accelerate`` or, on CUDA, ``CUDA graph``: the manual engine with a captured micro-batch."""
    precision: str
    """``float64``, ``float32`` or ``bfloat16``."""
    windows: dict[str, WindowMeasures]
    """``full``, ``tail`` and ``ragged``."""
    passed: bool
    verdict: str


class PeerRow(TypedDict):
    """One other project's loop, or the reason why it was not measured."""

    name: str
    distribution: str
    """Name of its Python distribution."""
    version: NotRequired[str]
    """Installed version; absent where it is not installed."""
    windows: NotRequired[dict[str, WindowMeasures]]
    passed: NotRequired[bool]
    verdict: NotRequired[str]
    reason: NotRequired[str]
    """Why the peer was not measured; windows, passed and verdict are absent then."""


class Certificate(TypedDict):
    """Whether the gradients that a model's trainings accumulate are those of their windows."""

    passed: bool
    """Whether our own engines passed; the peers do not count."""
    verdict: str
    """The result in one sentence."""
    model: dict[str, Any]
    """The model's spec."""
    parameters: int
    """Number of the model's parameters."""
    loading: LoadingReport | None
    """How the pretrained weights were loaded; null for an encoder from scratch."""
    attention: str | None
    """Why the study can have no attention maps of this encoder, in one sentence; null where it can."""
    seed: int
    device: str
    """Name of the hardware."""
    device_kind: str
    """``cpu``, ``cuda`` or ``mps``."""
    versions: dict[str, str]
    """Library → version."""
    precision: str
    """Precision that the study's ``precision`` resolves to on this device."""
    tolerances: dict[str, float]
    """Precision → largest ``largest_difference`` that passes. That of float64 is larger for an encoder that computes
    parts in float32 whatever its weights are in."""
    micro_batch: int
    """Examples per micro-batch."""
    accumulation_steps: int
    """Micro-batches of a full window."""
    windows: dict[str, list[int]]
    """Name of a window → examples in each of its micro-batches."""
    engines: list[EngineRow]
    not_measured: dict[str, str]
    """Precision → why the encoder cannot compute in it; it has no rows."""
    peers: list[PeerRow]
    seconds: float
    """Seconds that the certificate took."""
