"""What a model's certificate depends on besides its tokens: nothing of the grid but the first seed."""

from batchscope.evaluation.spec import Precision
from batchscope.model.spec import ModelSpec
from batchscope.provenance.spec import Spec
from batchscope.training.spec import Device

FEWEST_REVIEWS = 14
"""Training reviews that the smallest windows of a certificate need: seven micro-batches of two."""


class CertificateSpec(Spec):
    """One model's certificate."""

    model: ModelSpec
    seed: int
    precision: Precision
    device: Device
    """As the config names it. Each kind of device has kernels of its own, and what trains is what is certified."""
