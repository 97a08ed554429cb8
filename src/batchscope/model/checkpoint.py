"""Checkpoints: safetensors files that hold all that is needed to rebuild the model."""

import json
import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model

from batchscope.errors import UserError
from batchscope.files import atomic
from batchscope.model.classifier import TextClassifier, rebuild_model
from batchscope.model.records import CheckpointFacts, CheckpointMetadata

METADATA_KEY = "batchscope"


def save_checkpoint(path: Path, model: TextClassifier, facts: CheckpointFacts) -> None:
    """Write weights, the encoder's config, the number of classes and ``facts``, atomically.

    The metadata has one key: safetensors writes several in random order, and equal models would have unequal files.
    Raises OSError with ``path`` where the disk refuses, for example because it is full.
    """
    metadata: CheckpointMetadata = {
        "encoder_config": model.config.to_dict(),
        "classes": model.head.out_features,
        "facts": facts,
    }
    with atomic(path) as temporary:
        try:
            save_model(model, str(temporary), metadata={METADATA_KEY: json.dumps(metadata, sort_keys=True)})
        except SafetensorError as error:
            raise _disk_error(error, path) from None


def load_checkpoint(path: Path, device: torch.device) -> tuple[TextClassifier, CheckpointFacts]:
    """Load the model in evaluation mode onto ``device``, and the facts saved with it.

    Raises UserError for a damaged file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata: CheckpointMetadata = json.loads(file.metadata()[METADATA_KEY])
        model = rebuild_model(metadata["encoder_config"], metadata["classes"])
        load_model(model, path)
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(
            f"cannot read the checkpoint {path}: {error}\nDelete the file; the next start trains the run again."
        ) from None
    return model.to(device).eval(), metadata["facts"]


def _disk_error(error: SafetensorError, path: Path) -> Exception:
    """The system's error inside of safetensors' own, which has neither number nor path; any other as it is."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1])), str(path)) if number else error
