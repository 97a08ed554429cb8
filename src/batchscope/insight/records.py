"""The files ``attention/*.json`` and ``geometry.json`` of a run, and what is made of one text. Pure, no torch."""

from typing import Literal, NamedTuple, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray


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
    words: list[int]
    """For each token the number of its word, from 0: word pieces of one word have the same number."""
    rollout: list[float]
    """Share of each token in the pooled attention rollout; empty where the encoder gives no attention maps."""
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


class HeadMeasures(TypedDict):
    """One head's attention over many reviews; each measure is a mean over all queries, padding excluded."""

    layer: int
    """Index from 0."""
    head: int
    """Index from 0."""
    window: int | None
    """Largest |i − j| that a sliding layer allows; null for global attention."""
    entropy: float
    """Shannon entropy over the logarithm of the number of allowed keys: 0 is one key, 1 is uniform."""
    distance: float
    """Mean |i − j|, weighted by attention."""
    even_distance: float
    """The same for uniform attention to the allowed keys."""
    largest_lift: float
    """Largest weight × number of allowed keys: 1 is uniform."""
    mass: dict[str, float | None]
    """Class of keys → share of the attention."""
    lift: dict[str, float | None]
    """Class of keys → share of the attention over that of uniform attention; null where no key is of the class."""
    sink_rates: dict[str, float]
    """ε → share of the reviews with a key to which the queries that may see it give more than ε on average (Gu et al.
    2024, arXiv 2410.10781)."""
    sink_classes: dict[str, float | None] | None
    """Class → share of the keys above ε = 0.3; null where there are none."""


Removed = Literal["sink", "random key", "special tokens"]
LayerSet = Literal["all", "global", "sliding"]


class Ablation(TypedDict):
    """What a model loses without some keys of its attention, over many reviews."""

    removed: Removed
    """``sink``: of each head and review the key with most attention, if it gets more than ε = 0.3 on average;
    ``random key``: in its place another key of the same head and review; ``special tokens``: all, from every head."""
    layers: LayerSet
    """The layers that are changed; ``global`` and ``sliding`` alone where the encoder has both."""
    reviews: int
    """Test reviews."""
    with_sink: float
    """Share of heads and reviews with a sink, in these layers."""
    margin: float
    """Mean margin of the untouched model: logit of the label minus the largest other one."""
    change: float
    """Mean change of the margin."""
    change_quantiles: dict[str, float]
    """Quantile → change of the margin: ``q05``, ``q25``, ``median``, ``q75``, ``q95``."""
    flips: int
    """Reviews whose prediction changes."""
    correct_before: int
    """Correct predictions of the untouched model."""
    correct_after: int
    """Correct predictions without the keys."""


class AttentionOfRun(TypedDict):
    """``attention/heads.json`` of a run. The classes of keys are ``cls``, ``sep``, ``punctuation``, ``function`` and
    ``content`` words, and ``rest``: what goes on with a word, and other special tokens."""

    asked: int
    """``insight.attention.reviews`` of the config."""
    reviews: int
    """Test reviews measured; fewer than asked where there are no more."""
    heads: list[HeadMeasures]
    """Empty where the encoder gives no attention."""
    rollout: dict[str, float | None]
    """Class of input tokens → its share of the pooled attention rollout over that of uniform attention."""
    ablation: list[Ablation]
    """Empty where there is none."""
    reason: NotRequired[str]
    """Why there is no attention of this encoder, in one sentence."""
    no_ablation: NotRequired[str]
    """Why there is no ablation, though there is attention."""


class Sharpness(TypedDict):
    """How much the loss rises around a checkpoint, in nats. Null where it is not finite."""

    average: float | None
    """Mean rise under Gaussian noise on every weight."""
    average_standard_error: float | None
    """Of that mean, over the draws of the noise; null for one draw."""
    one_step: float | None
    """Rise after one step along the gradient (Foret et al. 2021, arXiv 2010.01412)."""
    adaptive: float | None
    """Highest rise of a few steps, each weight measured in units of its size (Kwon et al. 2021, arXiv 2102.11600)."""


class CheckpointGeometry(TypedDict):
    """The training loss around one checkpoint, on the fixed examples, without dropout, in float32."""

    epoch: int
    update: int
    """Number of the last update before the checkpoint, from 1."""
    loss: float | None
    """Mean cross entropy in nats."""
    correct: int
    """Examples that are labelled correctly."""
    gradient_norm: float | None
    weight_norm: float
    distance: float | None
    """‖w − w₀‖ from the weights that the training began with; null where these cannot be had."""
    logit_size: float
    """Root mean square of the centred logits."""
    plain: Sharpness
    """Of the loss as it is."""
    normalised: Sharpness
    """Of the loss of logits whose size is normalised (Andriushchenko et al. 2023, arXiv 2302.07011)."""
    eigenvalues: list[float]
    """Largest eigenvalues of the Hessian that converged, the largest first."""
    hessian_products: int
    """Hessian-vector products that Lanczos used."""
    hessian_reason: NotRequired[str]
    """Why eigenvalues are missing, in one sentence."""


class GeometryOfRun(TypedDict):
    """``geometry.json`` of a run."""

    asked: int
    """``insight.geometry.examples`` of the config."""
    examples: int
    """Training examples measured; fewer than asked where there are no more."""
    parameters: int
    """Number of weights."""
    best: CheckpointGeometry
    last: CheckpointGeometry
    """Equal to ``best`` where the best checkpoint is the last."""
    distance_reason: NotRequired[str]
    """Why there is no distance from the start, in one sentence."""


class Explanation(NamedTuple):
    """What a model makes of one text."""

    facts: ReviewMeasures
    probabilities: NDArray[np.float32]
    """``[C]``."""
    cut: bool
    """Whether the text has more tokens than the model was trained to read."""
    weights: NDArray[np.float32]
    """``[layers, n, n]``, heads averaged; no layers where the encoder gives no attention."""
    rollout: NDArray[np.float64]
    """Share ``[n]`` of each token in the pooled output; empty where there is no attention."""
    reason: str | None
    """Why there is no attention."""

    def strongest(self, count: int) -> list[tuple[str, float]]:
        """The tokens with most rollout attention and their shares, largest first."""
        order = np.argsort(-self.rollout, kind="stable")[:count]
        return [(self.facts["tokens"][place], float(self.rollout[place])) for place in order]
