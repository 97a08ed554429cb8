"""The cases: who trains what, how often. ``select`` finds them by name, by its beginning, or by ``cpu`` and ``gpu``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from batchscope.errors import UserError


@dataclass(frozen=True)
class Contender:
    """One row of a case's table."""

    module: str
    """File in ``benchmarks/contenders``."""
    label: str
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    physical_batch_size: int | Literal["auto"] = 16


@dataclass(frozen=True)
class Training:
    """Samples per second of each contender at one encoder and target batch size."""

    name: str
    title: str
    device: Literal["cpu", "cuda"]
    encoder: str
    target_batch_size: int
    warm_up: int
    """Updates at the start that do not count."""
    updates: int
    """Updates that count; on a GPU all but the last of them."""
    contenders: tuple[Contender, ...]


@dataclass(frozen=True)
class Accuracy:
    """Validation accuracy after a short training, ours at its own settings beside Trainer at its default."""

    name: str
    title: str
    device: Literal["cpu", "cuda"]
    encoder: str
    target_batch_size: int
    updates: int
    learning_rate: float
    validation: int
    """Reviews to measure on."""
    contenders: tuple[Contender, ...]


@dataclass(frozen=True)
class EndToEnd:
    """A whole study through the DAG beside the straightforward script for every cell."""

    name: str
    title: str
    encoders: tuple[str, ...]
    reviews: int
    """Four fifths of them are for training."""
    epochs: int
    learning_rate: float
    seeds: tuple[int, ...] = (42,)
    target_batch_sizes: tuple[int, ...] = (64, 256, 1024)
    device: Literal["cpu"] = "cpu"


@dataclass(frozen=True)
class Overhead:
    """What of the demo's wall time is useful."""

    name: str
    title: str
    config: str = "config/demo.yaml"
    device: Literal["cpu"] = "cpu"


@dataclass(frozen=True)
class Memory:
    """Peak memory of evaluation and attention at two numbers of reviews."""

    name: str
    title: str
    encoder: str = "small"
    evaluated: tuple[int, int] = (2_000, 20_000)
    attended: tuple[int, int] = (200, 2_000)
    device: Literal["cpu"] = "cpu"


Case = Training | Accuracy | EndToEnd | Overhead | Memory

TRAINER = Contender("trainer", "HF Trainer")
STRAIGHTFORWARD = Contender("straightforward", "straightforward script")
PEERS = (
    TRAINER,
    Contender("accelerate_loop", "Accelerate loop"),
    Contender("lightning_module", "Lightning"),
    STRAIGHTFORWARD,
)
OURS = Contender("ours", "Batchscope")
OURS_AUTO = Contender("ours", "Batchscope, all `auto`", "auto", "auto")


SOME = (OURS, TRAINER, STRAIGHTFORWARD, OURS_AUTO)
"""To save time: Accelerate and Lightning are measured at target batch 64."""


def in_bfloat16(contender: Contender) -> Contender:
    """The contender on a GPU; the script of the reference study knows float32 alone."""
    precision: Literal["float32", "bfloat16"] = "float32" if contender.module == "straightforward" else "bfloat16"
    return Contender(contender.module, contender.label, precision, contender.physical_batch_size)


GPU_CONTENDERS = (*map(in_bfloat16, (OURS, *PEERS)), OURS_AUTO)
GPU_UPDATES = {64: 40, 256: 16, 1024: 6}

CASES: tuple[Case, ...] = (
    Training("small-64", "2-layer encoder, target batch 64", "cpu", "small", 64, 3, 40, (OURS, *PEERS, OURS_AUTO)),
    Training("small-256", "2-layer encoder, target batch 256", "cpu", "small", 256, 1, 10, SOME),
    Training("minilm-64", "MiniLM, target batch 64", "cpu", "minilm", 64, 1, 2, (OURS, *PEERS, OURS_AUTO)),
    Accuracy(
        "accuracy", "MiniLM, accuracy after 16 updates", "cpu", "minilm", 64, 16, 1e-4, 500, (OURS_AUTO, TRAINER)
    ),
    EndToEnd("study-minilm", "A whole study: MiniLM", ("minilm",), 1_300, 1, 1e-4, seeds=(42, 43)),
    EndToEnd("study-small", "A whole study: two small encoders", ("small", "small-modernbert"), 1_600, 2, 1e-3),
    Overhead("overhead", "Pipeline overhead of the demo"),
    Memory("memory", "Peak memory by number of reviews"),
    *(
        Training(
            f"{encoder}-{target}", f"{title}, target batch {target}", "cuda", encoder, target, 3, updates + 1,
            GPU_CONTENDERS,
        )
        for encoder, title in (("bert-base", "BERT-base"), ("modernbert-base", "ModernBERT-base"))
        for target, updates in GPU_UPDATES.items()
    ),
)  # fmt: skip

SELECTORS: dict[str, Callable[[Any], bool]] = {
    "all": lambda case: True,
    "cpu": lambda case: case.device == "cpu",
    "gpu": lambda case: case.device == "cuda",
}


def select(wanted: str) -> list[Case]:
    """The cases that a comma-separated list asks for, in their own order. UserError for a name that fits none."""
    chosen: list[Case] = []
    for name in filter(None, wanted.split(",")):
        fits = SELECTORS.get(name, lambda case, name=name: case.name == name or case.name.startswith(f"{name}-"))
        found = [case for case in CASES if fits(case)]
        if not found:
            raise UserError(
                f"CASES: there is no case {name!r}; there are all, cpu, gpu, {', '.join(c.name for c in CASES)}"
            )
        chosen += found
    return [case for case in CASES if case in chosen]
