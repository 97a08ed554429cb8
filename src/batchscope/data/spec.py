"""What the stages that make the data depend on."""

from typing import Literal

from batchscope.model.spec import ModelSpec
from batchscope.provenance.spec import Spec

Truncation = Literal["head", "tail", "head_tail"]


class SyntheticSpec(Spec):
    """The embedded corpus."""

    reviews: int
    seed: int
    label_noise: float


class CorpusSpec(Spec):
    """The reviews and their source."""

    kind: Literal["synthetic", "local", "hub"]
    synthetic: SyntheticSpec | None = None
    source: str | None = None
    """Path, or hub id."""
    content: str | None = None
    """Hash of a local source's files: it identifies the reviews, wherever they are."""
    revision: str | None = None
    """Commit, tag or branch of a hub id."""
    text: str | None = None
    """Column of the text."""
    label: str | None = None
    """Column of the label."""
    sample: int | None = None
    """Number of reviews to keep; all if unset."""
    sample_seed: int | None = None


class SplitSpec(Spec):
    """The division into train, validation and test; shares between 0 and 1."""

    method: Literal["pooled", "official"]
    train: float
    validation: float
    test: float
    seed: int


SHORTEST = 8
"""The least ``max_length``, in tokens."""


class TokensSpec(Spec):
    """One model's tokens. ``model.config`` is unset: the size of an encoder from scratch does not matter to them."""

    model: ModelSpec
    max_length: int
    truncation: Truncation


class ReviewsSpec(Spec):
    """The reviews whose attention is shown: the user's own texts, or a choice if there are none."""

    texts: tuple[str, ...]
