"""Everything that the result of one training depends on besides its tokens, and the settings that do not change it."""

from typing import Literal

from batchscope.evaluation.spec import Precision
from batchscope.model.spec import ModelSpec
from batchscope.provenance.spec import Spec
from batchscope.training.schedule import ScheduleName
from batchscope.wording import REVIEWS

Device = Literal["auto", "cpu", "cuda", "mps"]
Engine = Literal["manual", "accelerate"]
Tail = Literal["exact", "naive", "drop"]


class BudgetSpec(Spec):
    """How long a run trains: exactly one of the three is set."""

    epochs: int | None = None
    updates: int | None = None
    samples: int | None = None


class ValidationSpec(Spec):
    """How often a run is validated within an epoch: exactly one of the two is set."""

    updates: int | None = None
    samples: int | None = None


class OptimizerSpec(Spec):
    """Adam, with weight decay as an L2 term (``adam``) or decoupled (``adamw``)."""

    name: Literal["adam", "adamw"]
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    max_grad_norm: float | None = None
    """Norm to which a window's gradient is clipped; unset is no clipping."""


class ScheduleSpec(Spec):
    """The learning rate over the updates of a run."""

    name: ScheduleName
    warmup: float
    """Share of the updates over which the learning rate rises."""


class TrainSpec(Spec):
    """One training, resolved: without policy names, and without settings that do not change the mathematics."""

    model: ModelSpec
    target_batch_size: int
    learning_rate: float
    seed: int
    budget: BudgetSpec
    optimizer: OptimizerSpec
    schedule: ScheduleSpec
    precision: Precision = "auto"
    engine: Engine = "manual"
    tail: Tail = "exact"
    keep: Literal["best", "all", "none"] = "best"
    naive_physical_batch_size: int | None = None
    """Set only for ``tail: naive``, whose gradients depend on the micro-batch size."""
    noise_scale: Literal["cheap", "full"] | None = None
    """Changes no weight but adds columns to the history, which is part of the result; unset for ``off``."""
    validate_every: ValidationSpec | None = None
    """Changes no weight but adds lines to the history; unset for the ends of epochs alone."""
    select_from: Literal["all"] | None = None
    """Set where validations within an epoch may choose the best checkpoint."""
    determinism: Literal["strict"] | None = None
    """Other kernels round differently; unset for ``fast``."""


class BranchSpec(Spec):
    """The branches of a run, besides what the run itself depends on."""

    at: tuple[int, ...]
    """Samples after which the run is branched, ascending."""
    factors: tuple[int, ...]
    """Multiples of the run's target batch size, ascending from 1."""
    samples: int
    """Samples that each branch trains on."""


class TrainSettings(Spec):
    """Settings that do not change the result of a training; they are part of no fingerprint."""

    physical_batch_size: int | Literal["auto"]
    device: Device
    gpus: int = 1
    save_every: float = 600
    """Seconds between saved states."""
    threads: int = 1
    """CPU threads of each job that runs a model, as the workflow asks for; to predict how long the jobs take."""
    all_maps: bool = False
    """Whether the study has attention maps of every run, and not of the first seed's alone."""
    words: tuple[str, str] = REVIEWS
    """What one text of the data and several are called, in messages."""
