"""What the measures inside the models depend on besides the files that they read."""

from batchscope.data.spec import Truncation
from batchscope.provenance.spec import Spec
from batchscope.report.spec import GridCell


class AttentionSpec(Spec):
    """How the reviews are cut: as those of the training."""

    max_length: int
    truncation: Truncation


class AttentionMeasuresSpec(Spec):
    """How many test reviews a run's attention is measured on."""

    reviews: int


class DivergenceSpec(Spec):
    """The grid, and how many test reviews the attention of two runs is compared on."""

    cells: tuple[GridCell, ...]
    reviews: int


class ErrorsSpec(Spec):
    """The grid."""

    cells: tuple[GridCell, ...]


class CalibrationSpec(Spec):
    """The grid, and how many bins of equal mass."""

    cells: tuple[GridCell, ...]
    bins: int
