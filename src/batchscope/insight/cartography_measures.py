"""How sure a run is of the labels of training examples at the end of each epoch, from the epochs' checkpoints."""

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from batchscope.data.tokens import load_tokens
from batchscope.errors import UserError, counted
from batchscope.evaluation.counts import log_softmax
from batchscope.evaluation.predict import predict
from batchscope.files import read_json_lines
from batchscope.hardware.device import pick_place
from batchscope.insight.features import subset
from batchscope.insight.review_batches import drawn_reviews
from batchscope.insight.spec import CartographyMeasuresSpec
from batchscope.insight.stored_cartography import Dynamics, EpochEnd, store_dynamics
from batchscope.model.checkpoint import load_checkpoint
from batchscope.provenance.fingerprint import file_hash
from batchscope.provenance.layout import epochs_in
from batchscope.provenance.reuse import MANIFEST, stored_manifest

log = logging.getLogger(__name__)


def write_dynamics(
    spec: CartographyMeasuresSpec,
    tokens_folder: Path,
    history: Path,
    checkpoints: dict[int, Path],
    output: Path,
    device_wanted: str,
) -> None:
    """Write ``cartography.parquet`` of a run: ``spec.examples`` training examples, or all if there are fewer.

    ``checkpoints`` has that of the end of every epoch in ``history``. The examples are drawn once, the same for every
    run of a model, and dropout is off. One model is in memory at a time, and of the examples their tokens, the logits
    of one epoch and the probability of the label of each epoch.
    """
    place, ends = pick_place(device_wanted, spec.precision), epoch_ends(history)
    tokens = load_tokens(tokens_folder / "train.arrow")
    chosen = subset(tokens, drawn_reviews(len(tokens), spec.examples))
    rows = np.arange(len(chosen))
    probability = np.empty((len(chosen), len(ends)), dtype=np.float32)
    right = np.empty((len(chosen), len(ends)), dtype=np.bool_)
    for column, end in enumerate(ends):
        model, _ = load_checkpoint(checkpoints[end.epoch], place.device)
        logits = predict(model, chosen, *place)
        probability[:, column] = np.exp(log_softmax(logits)[rows, chosen.label])
        right[:, column] = logits.argmax(1) == chosen.label
    label: NDArray[np.int64] = chosen.label
    store_dynamics(Dynamics(spec.examples, ends, chosen.example_id, label, probability, right), output)
    log.info(f"followed {counted(len(chosen), 'training example')} over {counted(len(ends), 'epoch')}")


def epoch_ends(history: Path) -> list[EpochEnd]:
    """The ends of the epochs in a run's ``history.jsonl``."""
    lines = read_json_lines(history)
    return [EpochEnd(line["epoch"], line["update"], line["samples"]) for line in lines if line["kind"] == "epoch"]


def kept_epochs(run_folder: Path) -> dict[int, Path]:
    """Epoch → the checkpoint of its end, of every epoch of a finished run.

    Raises UserError where one is missing or not as the training wrote it.
    """
    manifest = stored_manifest(run_folder / MANIFEST)
    found, written = epochs_in(run_folder), manifest["files"] if manifest else {}
    for end in epoch_ends(run_folder / "history.jsonl"):
        path = found.get(end.epoch)
        expected = written.get(path.relative_to(run_folder).as_posix()) if path else None
        if path is None or expected is None:
            raise UserError(
                f"{run_folder}/checkpoints has no checkpoint of epoch {end.epoch}, which `insight.cartography` reads. "
                + _train_again(run_folder)
            )
        if file_hash(path) != expected:
            raise UserError(f"{path} is not as its training wrote it. Delete it. {_train_again(run_folder)}")
    return found


def _train_again(run_folder: Path) -> str:
    return (
        f"Delete {run_folder}/checkpoints/best.safetensors and start the workflow again with `keep: all`: the run is "
        "trained again"
    )
