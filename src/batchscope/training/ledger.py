"""The counts of a run in progress: what it has done, how well, how fast. Pure, saved with every state."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from batchscope.training.windows import Window

Record = dict[str, Any]


@dataclass
class Ledger:
    """Integer counts and sums of a run; a mean is taken once, when it is written down."""

    update: int = 0
    physical_batch_size: int = 0
    samples: int = 0
    epoch_loss: float = 0.0
    epoch_correct: int = 0
    epoch_examples: int = 0
    epochs: list[Record] = field(default_factory=list)
    update_seconds: list[float] = field(default_factory=list)
    validation_seconds: float = 0.0
    data_wait_seconds: float = 0.0
    trial: Record = field(default_factory=dict)
    telemetry: dict[str, float | None] = field(default_factory=dict)
    seconds: float = 0.0

    def count_update(self, window: Window, loss_sum: float, correct: int, lr: float, grad_norm: float) -> Record:
        """Count one update; returns its line of the history."""
        self.update, self.samples = window.update, window.samples
        self.epoch_loss += loss_sum
        self.epoch_correct += correct
        self.epoch_examples += window.examples
        return {
            "kind": "update",
            "update": window.update,
            "epoch": window.epoch,
            "samples": window.samples,
            **_scores(correct, window.examples, loss_sum),
            "lr": lr,
            "grad_norm": grad_norm,
        }

    def close_epoch(self, window: Window, validation: Record) -> Record:
        """End the epoch with its validation scores; returns its line of the history."""
        record = {
            "kind": "epoch",
            "epoch": window.epoch,
            "update": window.update,
            "samples": window.samples,
            "train": _scores(self.epoch_correct, self.epoch_examples, self.epoch_loss),
            "validation": {key: validation[key] for key in ("correct", "examples", "accuracy", "loss")},
        }
        self.epochs.append(record)
        self.epoch_loss, self.epoch_correct, self.epoch_examples = 0.0, 0, 0
        return record

    @property
    def best(self) -> Record:
        """The epoch with the most correct validation reviews; of several the earliest."""
        return max(self.epochs, key=lambda record: (record["validation"]["correct"], -record["epoch"]))

    def facts(self) -> Record:
        """What ``train.json`` says of the run."""
        training_seconds = sum(self.update_seconds)
        return {
            "best_epoch": self.best["epoch"],
            "best_validation": self.best["validation"],
            "epochs": len(self.epochs),
            "updates": self.update,
            "samples": self.samples,
            "physical_batch_size": self.physical_batch_size,
            "trial": self.trial,
            "seconds": self.seconds,
            "training_seconds": training_seconds,
            "validation_seconds": self.validation_seconds,
            "data_wait_seconds": self.data_wait_seconds,
            "samples_per_second": self.samples / training_seconds,
            "update_seconds_p50": float(np.percentile(self.update_seconds, 50)),
            "update_seconds_p95": float(np.percentile(self.update_seconds, 95)),
        }

    def to_dict(self) -> Record:
        """Plain values for a saved state; the constructor takes them back."""
        return asdict(self)


def checkpoint_name(epoch: Record) -> str:
    """File name of an epoch's checkpoint, with its validation accuracy."""
    return f"epoch{epoch['epoch']}-val_acc{epoch['validation']['accuracy']:.4f}.safetensors"


def _scores(correct: int, examples: int, loss_sum: float) -> Record:
    return {"correct": correct, "examples": examples, "accuracy": correct / examples, "loss": loss_sum / examples}
