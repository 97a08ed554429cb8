"""What a run's predictions depend on besides its checkpoints and tokens."""

from typing import Literal

from batchscope.provenance.spec import Spec

Precision = Literal["float32", "bfloat16", "auto"]


class EvaluationSpec(Spec):
    """Predictions of a run."""

    precision: Precision
