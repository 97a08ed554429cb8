"""The section ``insight:`` of the config: what is measured of finished runs. None of it trains anything."""

from typing import Annotated

from pydantic import Field

from batchscope.config.section import PositiveInt, Section


class CalibrationSettings(Section):
    """Calibration: whether the probabilities mean what they say."""

    enabled: bool = True
    """Measure the calibration of every run, from its predictions."""
    bins: Annotated[int, Field(ge=2, le=100)] = 15
    """Bins of equal mass, for the calibration error and for the reliability diagram."""


class AttentionSettings(Section):
    """The attention of every head over many test reviews."""

    enabled: bool = False
    """Measure the attention of every run, per layer and head."""
    reviews: PositiveInt = 1000
    """Test reviews that it is measured on; all of them if there are fewer."""
    divergence_reviews: PositiveInt = 200
    """Test reviews on which the attention of two runs is compared."""


class ErrorSettings(Section):
    """The errors on the test reviews."""

    enabled: bool = False
    """Tell every test review's errors over all runs, and whether the batch size or the seed decides them."""


class Insight(Section):
    """What is measured of finished runs. Changing it does not retrain anything."""

    attention: AttentionSettings = AttentionSettings()
    """The attention of every head over many test reviews."""
    calibration: CalibrationSettings = CalibrationSettings()
    """Calibration: whether the probabilities mean what they say."""
    errors: ErrorSettings = ErrorSettings()
    """The errors on the test reviews."""
