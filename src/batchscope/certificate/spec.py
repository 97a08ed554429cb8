"""What a model's certificate depends on besides its tokens: nothing of the grid but the first seed."""

from batchscope.evaluation.spec import Precision
from batchscope.model.spec import ModelSpec
from batchscope.provenance.spec import Spec


class CertificateSpec(Spec):
    """One model's certificate."""

    model: ModelSpec
    seed: int
    precision: Precision
