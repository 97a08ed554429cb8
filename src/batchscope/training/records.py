"""The files of a run: the lines of ``history.jsonl``, ``train.json``, and the counts in a saved state. Pure."""

from typing import Literal, NotRequired, TypedDict

from batchscope.evaluation.records import Scores
from batchscope.hardware.records import TelemetryFacts, TelemetryTotals

MicroStepKind = Literal["eager", "cuda_graph"]


class UpdateLine(Scores):
    """A line of ``history.jsonl``: one update. Its scores are those of the window's examples during training."""

    kind: Literal["update"]
    update: int
    """Number of the update, from 1."""
    epoch: int
    """Number of the epoch, from 1."""
    samples: int
    """Examples seen since the start of the run, this window included."""
    lr: float
    """Learning rate of the update."""
    grad_norm: float
    """Norm of the window's gradient before clipping."""
    gradient_square: NotRequired[float | None]
    """With ``noise_scale``: estimate of the squared norm of the true gradient. None for a window of one micro-batch."""
    noise_trace: NotRequired[float | None]
    """With ``noise_scale``: estimate of the trace of one example's gradient covariance. None as above."""


class EpochLine(TypedDict):
    """A line of ``history.jsonl``: the end of one epoch."""

    kind: Literal["epoch"]
    epoch: int
    """Number of the epoch, from 1."""
    update: int
    """Number of the epoch's last update, from 1."""
    samples: int
    """Examples seen since the start of the run."""
    train: Scores
    """Scores during training: with dropout, while the weights change."""
    validation: Scores
    """Scores on the validation split after the epoch's last update."""


class ValidationLine(TypedDict):
    """A line of ``history.jsonl``: a validation within an epoch, with ``validate_every``."""

    kind: Literal["validation"]
    epoch: int
    """Number of the epoch, from 1."""
    update: int
    """Number of the last update before it, from 1."""
    samples: int
    """Examples seen since the start of the run."""
    validation: Scores
    """Scores on the validation split after that update."""


HistoryLine = UpdateLine | EpochLine | ValidationLine


class ValidationTime(TypedDict):
    """When a validation was reached. It is measured, so it is not in the history, which resumes to the same bytes."""

    update: int
    """Number of the last update before the validation, from 1."""
    seconds: float
    """Wall time of the updates up to it; validations are not counted."""


class Trial(TypedDict, total=False):
    """What was measured before the first update to choose the micro-batch and how it is computed."""

    micro_step: MicroStepKind
    """How a micro-batch is computed."""
    micro_step_seconds: dict[str, float]
    """On a GPU: seconds of one micro-batch, by kind of micro-step."""
    samples_per_second: dict[str, float]
    """With ``physical_batch_size: auto``: rate by size of the micro-batch (JSON keys are strings)."""
    seconds: float
    """Wall time of the trial, over all starts. ``training_seconds`` does not contain it."""


class WindowCounts(TypedDict):
    """The accumulation windows of a run's first epoch."""

    full: int
    """Windows of exactly the target batch size."""
    tail: int
    """Smaller windows: 0 or 1."""
    tail_examples: int
    """Examples in the smaller window; 0 where there is none."""


class LedgerFacts(TypedDict):
    """The part of ``train.json`` that the run's ledger counts."""

    best_epoch: int
    """Epoch of the validation with the most correct examples; of several the earliest. It is at the end of an epoch, or
    with ``select_from: all`` perhaps within one."""
    best_update: int
    """Number of the last update before that validation, from 1."""
    best_validation: Scores
    """Scores of that validation."""
    validation_times: list[ValidationTime]
    """One entry per validation, in order."""
    epochs: int
    updates: int
    samples: int
    physical_batch_size: int
    """Examples per micro-batch at the end of the run."""
    trial: Trial
    seconds: float
    """Wall time of the whole training, over all starts up to their last saved state."""
    training_seconds: float
    """Wall time of the updates."""
    validation_seconds: float
    """Wall time of the validations."""
    data_wait_seconds: float
    """Wall time until the micro-batches of each window were ready."""
    samples_per_second: float
    """``samples / training_seconds``."""
    update_seconds_p50: float
    update_seconds_p95: float


class TrainFacts(LedgerFacts, TelemetryFacts):
    """``train.json``: what a finished training did, with what, and how fast."""

    train_examples: int
    """Examples of the train split."""
    diverged: bool
    """Whether the training loss of the last epoch is above that of guessing."""
    device: str
    """Name of the hardware."""
    device_type: str
    """Kind of device: ``cpu``, ``cuda`` or ``mps``."""
    precision: Literal["float32", "bfloat16"]
    determinism: Literal["fast", "strict"]
    ranks: int
    """Processes that shared the run."""
    peak_memory_bytes: int
    """Largest memory held at once: by tensors on a GPU, by the process on a CPU."""
    parameters: int
    """Number of the model's parameters."""
    training_flops_per_sample: float | None
    """Floating-point operations of one example's forward and backward pass, from the encoder's shapes: 3 · (2 · n · P +
    4 · layers · n² · d) with n tokens, P weights in the encoder's matrices and hidden size d. None where its config
    does not say them, or layers share their weights."""
    windows_per_epoch: WindowCounts


class BranchUpdate(Scores):
    """One update of a branch. Its scores are those of the window's examples during training."""

    samples: int
    """Examples seen since the start of the run, this window included."""
    lr: float
    """Learning rate of the update."""
    grad_norm: float
    """Norm of the window's gradient before clipping."""


class Branch(TypedDict):
    """A short training from a state of a run."""

    factor: int
    """Multiple of the run's target batch size."""
    target_batch_size: int
    """Examples per update: `factor` × that of the run."""
    diverged: bool
    """Whether a loss or gradient was not finite; its updates end there."""
    equals_run: bool | None
    """For factor 1: whether its updates are those of the run bit for bit, as on a CPU; null for the others."""
    updates: list[BranchUpdate]
    """Its updates, in order."""


class BranchPoint(TypedDict):
    """A state of a run and the branches from it."""

    at: int
    """Samples that the config names."""
    update: int
    """Update of the run after which the branches begin."""
    samples: int
    """Examples that the run had seen by then."""
    state: Literal["kept", "replayed"]
    """Whether the training kept the state, or it was replayed because it was lacking."""
    branches: list[Branch]
    """By ascending factor."""


class BranchesFile(TypedDict):
    """``branches.json`` of a run: its branches at larger batches."""

    training: str
    """Fingerprint of the run's training."""
    device: str
    """Name of the hardware of the branches."""
    precision: Literal["float32", "bfloat16"]
    """Arithmetic of the branches."""
    physical_batch_size: int
    """Examples per micro-batch, as in the run."""
    points: list[BranchPoint]
    """By ascending number of samples."""


class SavedLedger(TypedDict):
    """The counts in a saved state, from which ``Ledger`` is made again."""

    update: int
    physical_batch_size: int
    samples: int
    epoch_loss: float
    """Summed loss of the unfinished epoch."""
    epoch_correct: int
    epoch_examples: int
    epochs: list[EpochLine]
    validations: list[ValidationLine]
    """Those within epochs."""
    update_seconds: list[float]
    validation_seconds: float
    data_wait_seconds: float
    trial: Trial
    telemetry: TelemetryTotals | None
    """None before the first saved state."""
    seconds: float
