"""How much of a GPU's memory a job that shares it may fill."""

import pytest

from batchscope.errors import UserError
from batchscope.hardware.device import CONTEXT_BYTES, share_of_memory

GIB = 2**30


@pytest.mark.parametrize("runs", [1, 2, 3, 8])
def test_all_shares_and_contexts_fit_together(runs: int) -> None:
    share = share_of_memory(80 * GIB, runs)
    assert runs * (share * 80 * GIB + CONTEXT_BYTES) == pytest.approx(80 * GIB)


def test_a_share_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="runs_per_gpu: 40 is too many for a GPU with 16 GiB"):
        share_of_memory(16 * GIB, 40)
