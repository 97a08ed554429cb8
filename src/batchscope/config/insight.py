"""The section ``insight:`` of the config: what is measured of finished runs. None of it trains anything."""

from typing import Annotated

from pydantic import Field

from batchscope.config.section import WHOLE, PositiveFloat, PositiveInt, Section


class CalibrationSettings(Section):
    """Calibration: whether the probabilities mean what they say."""

    enabled: bool = True
    """Measure the calibration of every run, from its predictions."""
    bins: Annotated[int, Field(ge=2, le=100), WHOLE] = 15
    """Bins of equal mass, for the calibration error and for the reliability diagram."""


class AttentionSettings(Section):
    """The attention of every head over many test reviews."""

    enabled: bool = False
    """Measure the attention of every run, per layer and head."""
    reviews: PositiveInt = 1000
    """Test reviews that it is measured on; all of them if there are fewer."""
    divergence_reviews: PositiveInt = 200
    """Test reviews on which the attention of two runs is compared."""
    ablation_reviews: PositiveInt = 200
    """Test reviews on which each run is measured without its attention sinks."""


class ErrorSettings(Section):
    """The errors on the test reviews."""

    enabled: bool = False
    """Tell every test review's errors over all runs, and whether the batch size or the seed decides them."""
    boundary: PositiveFloat = 1.0
    """A wrong prediction is a boundary misclassification if the logit of the label is less than this much below the
    largest one. With two classes, 1 means: the label still has a probability above 27%."""
    hardest: PositiveInt = 20
    """Reviews of each model that are exported and shown in full, those that most runs get wrong."""
    embedding: bool = True
    """Draw the test reviews as points, by PCA and t-SNE of their pooled features: of the first seed and LR policy, at
    all target batch sizes together."""
    reviews: PositiveInt = 1000
    """Test reviews that are drawn as points; all of them if there are fewer."""


class GeometrySettings(Section):
    """The training loss around the checkpoints: sharpness, curvature, and what lies between two runs."""

    enabled: bool = False
    """Measure every run's best and last checkpoint, and compare runs. The Hessian takes most of the time."""
    examples: PositiveInt = 256
    """Training examples that it is measured on, the same for every run; all of them if there are fewer."""
    noise: PositiveFloat = 0.005
    """Average-case sharpness: standard deviation of the Gaussian noise on every weight."""
    draws: PositiveInt = 5
    """Average-case sharpness: draws of the noise, each used with both signs."""
    radius: PositiveFloat = 0.05
    """One-step sharpness: length of the step along the gradient."""
    adaptive_radius: PositiveFloat = 0.5
    """Adaptive sharpness: length of the step where every weight is measured in units of its size."""
    ascent_steps: PositiveInt = 3
    """Adaptive sharpness: steps of the ascent."""
    eigenvalues: Annotated[int, Field(ge=0, le=20), WHOLE] = 2
    """Largest eigenvalues of the Hessian; 0 leaves it out."""
    hessian_products: PositiveInt = 50
    """Hessian-vector products after which Lanczos stops; eigenvalues that have not converged are named as missing."""
    pairs: PositiveInt = 9
    """Most pairs of batch sizes, and most pairs of seeds, that are compared within a model, LR policy and budget."""
    path_points: Annotated[int, Field(ge=3), WHOLE] = 11
    """Points of the line between two runs at which the loss is measured, the ends included."""


class CartographySettings(Section):
    """Dataset cartography: which training examples are easy, ambiguous or hard over the epochs."""

    enabled: bool = False
    """Read the probability of every example's label from the checkpoint of each epoch, and ask whether the batch size
    or the seed decides which examples are easy, ambiguous or hard. Needs `keep: all` and two epochs."""
    examples: PositiveInt = 1000
    """Training examples that it is measured on, the same for every run; all of them if there are fewer."""


class Insight(Section):
    """What is measured of finished runs. Changing it does not retrain anything."""

    attention: AttentionSettings = AttentionSettings()
    """The attention of every head over many test reviews."""
    calibration: CalibrationSettings = CalibrationSettings()
    """Calibration: whether the probabilities mean what they say."""
    cartography: CartographySettings = CartographySettings()
    """Dataset cartography: which training examples are easy, ambiguous or hard over the epochs."""
    errors: ErrorSettings = ErrorSettings()
    """The errors on the test reviews."""
    geometry: GeometrySettings = GeometrySettings()
    """The training loss around the checkpoints: sharpness, curvature, and what lies between two runs."""
