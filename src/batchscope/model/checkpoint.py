"""Checkpoints: safetensors files that hold all that is needed to rebuild the model."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model

from batchscope.errors import UserError
from batchscope.files import atomic
from batchscope.model.classifier import TextClassifier, rebuild_model

METADATA_KEY = "batchscope"


def save_checkpoint(path: Path, model: TextClassifier, facts: dict[str, Any]) -> None:
    """Write weights, the encoder's config, the number of classes and ``facts``, atomically.

    All of it stands under one metadata key: safetensors writes several in random order, and equal models would have
    unequal files.
    """
    metadata = {"encoder_config": model.config.to_dict(), "classes": model.head.out_features, "facts": facts}
    with atomic(path) as temporary:
        save_model(model, str(temporary), metadata={METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def load_checkpoint(path: Path, device: torch.device) -> tuple[TextClassifier, dict[str, Any]]:
    """The model in evaluation mode on ``device``, and the facts saved with it. UserError for a damaged file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads(file.metadata()[METADATA_KEY])
        model = rebuild_model(metadata["encoder_config"], metadata["classes"])
        load_model(model, path)
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(
            f"cannot read the checkpoint {path}: {error}\nDelete the file; the next start trains the run again."
        ) from None
    return model.to(device).eval(), metadata["facts"]
