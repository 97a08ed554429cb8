"""What the measures inside the models depend on besides the files that they read."""

from typing import Literal

from batchscope.data.spec import CorpusSpec, Truncation
from batchscope.provenance.spec import Spec
from batchscope.report.spec import GridCell


class AttentionSpec(Spec):
    """How the reviews are cut: as those of the training."""

    max_length: int
    truncation: Truncation


class AttentionMeasuresSpec(Spec):
    """How many test reviews a run's attention is measured on, and how many of them without its sinks."""

    reviews: int
    ablation_reviews: int


class DivergenceSpec(Spec):
    """The grid, and how many test reviews the attention of two runs is compared on."""

    cells: tuple[GridCell, ...]
    reviews: int


class LabelReviewSpec(Spec):
    """A file of labels that people judged anew, and where the reviews come from, which may have ids."""

    source: str
    """Path of the file."""
    content: str
    """Hash of the file."""
    corpus: CorpusSpec


class ErrorsSpec(Spec):
    """The grid, what counts as near the boundary, how many reviews are shown in full, and how reviews are cut."""

    cells: tuple[GridCell, ...]
    boundary: float
    """In logits."""
    hardest: int
    truncation: Truncation
    label_review: LabelReviewSpec | None = None


class FeaturesSpec(Spec):
    """How many test reviews a run's features are written of, in which precision."""

    reviews: int
    precision: Literal["auto", "float32", "bfloat16"]


class EmbeddingSpec(Spec):
    """The runs that are embedded together, one cell each, and what counts as near the boundary."""

    cells: tuple[GridCell, ...]
    reviews: int
    """Asked for in the config; there may be fewer."""
    boundary: float
    """In logits."""


class CalibrationSpec(Spec):
    """The grid, and how many bins of equal mass."""

    cells: tuple[GridCell, ...]
    bins: int


class CartographyMeasuresSpec(Spec):
    """How many training examples go through the checkpoint of each epoch of a run, in which precision."""

    examples: int
    precision: Literal["auto", "float32", "bfloat16"]


class CartographySpec(Spec):
    """The grid."""

    cells: tuple[GridCell, ...]


class GeometryMeasuresSpec(Spec):
    """What is measured around the checkpoints of a run: the settings of ``insight.geometry``."""

    examples: int
    noise: float
    draws: int
    radius: float
    adaptive_radius: float
    ascent_steps: int
    eigenvalues: int
    hessian_products: int


class GeometrySpec(Spec):
    """The grid, and how runs are compared."""

    cells: tuple[GridCell, ...]
    examples: int
    pairs: int
    """Most pairs of each kind within one model, LR policy and budget."""
    path_points: int
    """Points of the line between two runs, its ends included."""
