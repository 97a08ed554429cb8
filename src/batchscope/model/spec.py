"""Which encoder a model begins with."""

from typing import Any, Literal

from batchscope.provenance.spec import Spec

Architecture = Literal["bert", "modernbert"]
MOST_LAYERS = 10_000
"""No encoder has as many: what a mistake in a config asks for would be built for hours."""


class ModelSpec(Spec):
    """An encoder before training: of a local folder, of the hub, or from scratch."""

    checkpoint: str | None = None
    """Path of a local folder, or hub id."""
    content: str | None = None
    """Hash of the local folder's files: it identifies the weights, wherever the folder is."""
    revision: str | None = None
    """Commit, tag or branch of a hub id."""
    architecture: Architecture | None = None
    """Random weights of this architecture."""
    config: dict[str, Any] | None = None
    """For ``architecture``: values of its transformers config; unset where a result does not depend on them."""
    vocabulary_size: int | None = None
    """For ``architecture``: entries of the tokenizer, which is trained on the train split."""
