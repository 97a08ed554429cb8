"""What a run's attention depends on besides its checkpoint and the reviews."""

from batchscope.data.spec import Truncation
from batchscope.provenance.spec import Spec


class AttentionSpec(Spec):
    """How the reviews are cut: as those of the training."""

    max_length: int
    truncation: Truncation
