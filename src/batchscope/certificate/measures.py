"""A window's gradient and loss against those of its full batch."""

import math

from torch import Tensor

from batchscope.certificate.records import WindowMeasures
from batchscope.training.gradients import compare


def window_measures(found: Tensor, expected: Tensor, logged_loss: float | None, true_loss: float) -> WindowMeasures:
    """Compare two gradients, float64 ``[parameters]``, and keep both losses."""
    difference = compare(found, expected)
    return {
        "largest_difference": difference["largest_difference"],
        "relative_l2": difference["relative_l2"],
        "norm_ratio": difference["norm_ratio"],
        "cosine": difference["cosine"],
        "logged_loss": _finite(logged_loss),
        "true_loss": _finite(true_loss),
    }


def _finite(loss: float | None) -> float | None:
    return loss if loss is not None and math.isfinite(loss) else None
