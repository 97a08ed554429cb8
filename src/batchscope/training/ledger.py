"""The counts of a run in progress: how far it is, its scores and its times. Pure, saved with every state."""

from dataclasses import asdict, dataclass, field
from typing import cast

import numpy as np

from batchscope.evaluation.records import Scores
from batchscope.hardware.records import TelemetryTotals
from batchscope.training.records import (
    EpochLine,
    LedgerFacts,
    SavedLedger,
    Trial,
    UpdateLine,
    ValidationLine,
    ValidationTime,
)
from batchscope.training.windows import Window


@dataclass
class Ledger:
    """Integer counts and sums of a run. Means are taken once, when they are written."""

    update: int = 0
    physical_batch_size: int = 0
    samples: int = 0
    epoch_loss: float = 0.0
    epoch_correct: int = 0
    epoch_examples: int = 0
    epochs: list[EpochLine] = field(default_factory=list)
    validations: list[ValidationLine] = field(default_factory=list)
    """Those within epochs."""
    select_from_all: bool = False
    """Whether they may choose the best checkpoint."""
    update_seconds: list[float] = field(default_factory=list)
    validation_seconds: float = 0.0
    data_wait_seconds: float = 0.0
    trial: Trial = field(default_factory=Trial)
    telemetry: TelemetryTotals | None = None
    seconds: float = 0.0

    def count_update(self, window: Window, loss_sum: float, correct: int, lr: float, grad_norm: float) -> UpdateLine:
        """Count one update and return its line of the history."""
        self.update, self.samples = window.update, window.samples
        self.epoch_loss += loss_sum
        self.epoch_correct += correct
        self.epoch_examples += window.examples
        return {
            "kind": "update",
            "update": window.update,
            "epoch": window.epoch,
            "samples": window.samples,
            "correct": correct,
            "examples": window.examples,
            "accuracy": correct / window.examples,
            "loss": loss_sum / window.examples,
            "lr": lr,
            "grad_norm": grad_norm,
        }

    def close_epoch(self, window: Window, validation: Scores) -> EpochLine:
        """End the epoch with its validation scores and return its line of the history."""
        line: EpochLine = {
            "kind": "epoch",
            "epoch": window.epoch,
            "update": window.update,
            "samples": window.samples,
            "train": _scores(self.epoch_correct, self.epoch_examples, self.epoch_loss),
            "validation": validation,
        }
        self.epochs.append(line)
        self.epoch_loss, self.epoch_correct, self.epoch_examples = 0.0, 0, 0
        return line

    def count_validation(self, window: Window, validation: Scores) -> ValidationLine:
        """Count a validation within an epoch and return its line of the history."""
        line: ValidationLine = {
            "kind": "validation",
            "epoch": window.epoch,
            "update": window.update,
            "samples": window.samples,
            "validation": validation,
        }
        self.validations.append(line)
        return line

    @property
    def best(self) -> EpochLine | ValidationLine | None:
        """The validation with the most correct reviews that may choose, of several the earliest; None before any."""
        lines: list[EpochLine | ValidationLine] = [*self.epochs]
        lines += self.validations if self.select_from_all else []
        return max(lines, key=lambda line: (line["validation"]["correct"], -line["update"]), default=None)

    def validation_times(self) -> list[ValidationTime]:
        """When each validation was reached, in seconds of updates."""
        reached = np.cumsum(self.update_seconds)
        updates = sorted(line["update"] for line in [*self.epochs, *self.validations])
        return [{"update": update, "seconds": float(reached[update - 1])} for update in updates]

    def facts(self) -> LedgerFacts:
        """The ledger's part of ``train.json``."""
        training_seconds, best = sum(self.update_seconds), self.best
        assert best is not None
        return {
            "best_epoch": best["epoch"],
            "best_update": best["update"],
            "best_validation": best["validation"],
            "validation_times": self.validation_times(),
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

    def to_saved(self) -> SavedLedger:
        """Plain values for a saved state; ``Ledger(**saved)`` takes them back."""
        plain = asdict(self)
        del plain["select_from_all"]  # it is the spec's
        return cast(SavedLedger, plain)


def checkpoint_name(line: EpochLine | ValidationLine) -> str:
    """File name of a validation's checkpoint, with its accuracy; one within an epoch is named by its update."""
    within = f"-update{line['update']}" if line["kind"] == "validation" else ""
    return f"epoch{line['epoch']}{within}-val_acc{line['validation']['accuracy']:.4f}.safetensors"


def _scores(correct: int, examples: int, loss_sum: float) -> Scores:
    return {"correct": correct, "examples": examples, "accuracy": correct / examples, "loss": loss_sum / examples}
