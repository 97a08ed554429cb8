"""How sure a run is of the labels of training examples at the end of each epoch, from the epochs' checkpoints."""

import logging
import re
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
from batchscope.insight.stored_cartography import FILE, Dynamics, EpochEnd, store_dynamics
from batchscope.model.checkpoint import load_checkpoint
from batchscope.provenance.fingerprint import file_hash
from batchscope.provenance.reuse import MANIFEST, stored_manifest

log = logging.getLogger(__name__)
EPOCH_END = re.compile(r"checkpoints/epoch(\d+)-val_acc[\d.]+\.safetensors")
"""Checkpoints of the ends of epochs in a run's manifest; those within an epoch are named by their update as well."""


def write_dynamics(spec: CartographyMeasuresSpec, tokens_folder: Path, run_folder: Path, device_wanted: str) -> None:
    """Write ``cartography.parquet`` of a run: ``spec.examples`` training examples, or all if there are fewer.

    The examples are drawn once, the same for every run of a model, and dropout is off. One model is in memory at a
    time, and of the examples their tokens, the logits of one epoch and the probability of the label of each epoch.

    Raises UserError where a checkpoint of an epoch is missing or not as the training wrote it.
    """
    place = pick_place(device_wanted, spec.precision)
    ends, paths = _epoch_ends(run_folder), _checkpoints(run_folder)
    missing = [end.epoch for end in ends if not paths.get(end.epoch, Path()).is_file()]
    if missing:
        raise UserError(
            f"{run_folder}/checkpoints has no checkpoint of epoch {missing[0]}, which `insight.cartography` reads. "
            + _train_again(run_folder)
        )
    tokens = load_tokens(tokens_folder / "train.arrow")
    chosen = subset(tokens, drawn_reviews(len(tokens), spec.examples))
    rows = np.arange(len(chosen))
    probability = np.empty((len(chosen), len(ends)), dtype=np.float32)
    right = np.empty((len(chosen), len(ends)), dtype=np.bool_)
    for column, end in enumerate(ends):
        model, _ = load_checkpoint(paths[end.epoch], place.device)
        logits = predict(model, chosen, *place)
        probability[:, column] = np.exp(log_softmax(logits)[rows, chosen.label])
        right[:, column] = logits.argmax(1) == chosen.label
    label: NDArray[np.int64] = chosen.label
    store_dynamics(Dynamics(spec.examples, ends, chosen.example_id, label, probability, right), run_folder / FILE)
    log.info(f"followed {counted(len(chosen), 'training example')} over {counted(len(ends), 'epoch')}")


def _epoch_ends(run_folder: Path) -> list[EpochEnd]:
    lines = read_json_lines(run_folder / "history.jsonl")
    return [EpochEnd(line["epoch"], line["update"], line["samples"]) for line in lines if line["kind"] == "epoch"]


def _checkpoints(run_folder: Path) -> dict[int, Path]:
    """Epoch → the checkpoint of its end, as far as the training kept it. UserError for one that was changed since."""
    manifest = stored_manifest(run_folder / MANIFEST)
    found = {}
    for name, expected in manifest["files"].items() if manifest else ():
        if named := EPOCH_END.fullmatch(name):
            path = found[int(named[1])] = run_folder / name
            if path.is_file() and file_hash(path) != expected:
                raise UserError(f"{path} is not as its training wrote it. Delete it. {_train_again(run_folder)}")
    return found


def _train_again(run_folder: Path) -> str:
    return (
        f"Delete {run_folder}/checkpoints/best.safetensors and start the workflow again with `keep: all`: the run is "
        "trained again"
    )
