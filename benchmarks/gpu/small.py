"""Small trainings for the checks: two tiny encoders on made-up reviews, without a config file or a workflow."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from batchscope.data.tokens import Tokens, write_tokens
from batchscope.hardware.device import Place, pick_place
from batchscope.model.classifier import TextClassifier, build_model
from batchscope.training.kept import KeptStates
from batchscope.training.loop import train_all_updates
from batchscope.training.microbatch import DeviceTokens
from batchscope.training.records import HistoryLine, MicroStepKind
from batchscope.training.run import Run
from batchscope.training.spec import TrainSettings, TrainSpec
from benchmarks import made_up

VOCABULARY, WIDTH, REVIEWS = 300, 32, 192
SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": SHAPE,
    "modernbert": SHAPE | {"num_hidden_layers": 3, "local_attention": 16},
}
DROPOUT = {
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "modernbert": ("attention_dropout", "mlp_dropout", "embedding_dropout"),
}
TARGET, MICRO_BATCH = 16, 6
"""A window is two micro-batches of 6 and one of 4."""


def reviews(count: int = REVIEWS, width: int = WIDTH) -> Tokens:
    """Reviews that these encoders can read."""
    return made_up.reviews(count, width, shortest=4, full=0.5, vocabulary=VOCABULARY)


def tokens_folder(folder: Path, count: int = REVIEWS, width: int = WIDTH) -> Path:
    """A tokens folder of ``count`` reviews for training and 32 for validation."""
    tokens = reviews(count + 32, width)
    write_tokens(made_up.rows(tokens, slice(count)), folder / "train.arrow")
    write_tokens(made_up.rows(tokens, slice(count, None)), folder / "validation.arrow")
    return folder


def spec_of(architecture: str, dropout: float = 0.0, **changes: Any) -> TrainSpec:
    """A training of one of ``ENCODERS``: 20 updates of 16 reviews in float32, unless changed."""
    config = ENCODERS[architecture] | dict.fromkeys(DROPOUT[architecture], dropout)
    model = {"architecture": architecture, "config": config, "vocabulary_size": VOCABULARY}
    values = {
        "model": model,
        "target_batch_size": TARGET,
        "learning_rate": 1e-3,
        "seed": 1,
        "budget": {"updates": 20},
        "optimizer": {"name": "adam", "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
        "schedule": {"name": "constant", "warmup": 0.0},
        "precision": "float32",
    }
    return TrainSpec.read(values | changes)


def model_of(architecture: str, device: torch.device, dropout: float = 0.0) -> TextClassifier:
    """One of ``ENCODERS`` as a training begins with it."""
    return build_model(spec_of(architecture, dropout).model, 2, VOCABULARY, 0, seed=1).to(device).train()


def data_on(device: torch.device) -> DeviceTokens:
    """The reviews on the device."""
    return DeviceTokens(reviews(), device)


def started(
    spec: TrainSpec, tokens: Path, folder: Path, place: Place, micro_batch: int = MICRO_BATCH, **others: Any
) -> Run:
    """A run before its first update; the caller closes it (``updates`` does)."""
    settings = TrainSettings(physical_batch_size=micro_batch, device=place.device.type)
    return Run(spec, settings, place, tokens, folder, others.pop("observe", lambda line: None), None)


def losses(
    spec: TrainSpec,
    tokens: Path,
    folder: Path,
    device: torch.device,
    kind: MicroStepKind | None = None,
    micro_batch: int = MICRO_BATCH,
    before: Callable[[Run], None] = lambda run: None,
) -> tuple[list[float], Run]:
    """Train; the mean loss of every update, and the finished run. ``kind`` is how a micro-batch is computed."""
    found: list[float] = []

    def observe(line: HistoryLine) -> None:
        if line["kind"] == "update":
            found.append(line["loss"])

    run = started(spec, tokens, folder, pick_place(device.type, spec.precision), micro_batch, observe=observe)
    if kind is not None:
        run.ledger.trial["micro_step"] = kind
    with run.stop, run.telemetry, closing(run.line), closing(run.ranks), closing(run.workspace):
        before(run)
        train_all_updates(run, KeptStates(folder / "kept", run.plan, None))
    return found, run
