"""The file ``attention/measures.json`` of a run. Pure, no torch."""

from typing import NotRequired, TypedDict


class LayerMeasures(TypedDict):
    """Measures of one layer's attention map, heads averaged; each is a mean over the map's rows (queries)."""

    layer: int
    """Index of the layer, from 0, as in the weights' arrays; pages and figures count layers from 1."""
    window: int | None
    """Largest |i − j| that a sliding layer allows; null for global attention."""
    entropy: float
    """Shannon entropy over the logarithm of the number of allowed keys: 0 is one key, 1 is uniform."""
    largest_weight: float
    """Largest weight of the row."""
    special_share: float
    """Weight on special tokens."""
    diagonal_share: float
    """Weight of a token on itself."""


class ReviewMeasures(TypedDict):
    """One review: its tokens, the model's prediction and the measures of each layer."""

    name: str
    """File name of the review's maps."""
    title: str
    text: str
    label: int | None
    """Number of the true class; null for a text of the user's own."""
    tokens: list[str]
    """The text of each token, special tokens included, spaces and line breaks as they are. A character that several
    tokens share is shown by its code point and the token's place in it: ``U+1F600 2/4``."""
    prediction: int
    """Number of the predicted class."""
    probability: float
    """Probability of the predicted class."""
    layers: list[LayerMeasures]
    """Empty where the encoder gives no attention maps."""


class AttentionMeasures(TypedDict):
    """All reviews of one run."""

    classes: list[str]
    """Names of the classes in label order."""
    reviews: list[ReviewMeasures]
    reason: NotRequired[str]
    """Why there are no attention maps of this encoder, in one sentence; ``attention.npz`` is empty then."""
