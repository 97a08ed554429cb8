"""What a checkpoint says of itself besides its weights. Pure, no torch."""

from typing import Any, TypedDict


class CheckpointFacts(TypedDict):
    """The line of the history that a checkpoint was saved at; a line has more keys, this one is read."""

    epoch: int
    """Epoch, counted from 1, that ended with these weights, or in which they were saved."""
    update: int
    """Number of the last update before they were saved, from 1."""


class CheckpointMetadata(TypedDict):
    """All that a checkpoint's file holds besides the weights, under one key of its safetensors metadata."""

    encoder_config: dict[str, Any]
    """The encoder's transformers config, as its ``to_dict()`` gives it."""
    classes: int
    """Number of classes: outputs of the linear head."""
    facts: CheckpointFacts


class LoadingReport(TypedDict):
    """How a pretrained encoder was loaded; part of the run's manifest. Names are those of transformers."""

    loaded: int
    """Weights of the encoder that the checkpoint's files hold."""
    missing: list[str]
    """Weights that the files do not hold: of an unused pooler alone, any other is refused."""
    unexpected: list[str]
    """Weights in the files that the encoder does not have, of a head; they were left out."""
