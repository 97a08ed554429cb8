"""How much of a GPU's memory a job that shares it may fill."""

import pytest
import torch

from batchscope.errors import UserError
from batchscope.hardware.device import CONTEXT_BYTES, pick_device, share_of_memory
from batchscope.hardware.lease import SHARED

GIB = 2**30


@pytest.mark.parametrize("runs", [1, 2, 3, 8])
def test_all_shares_and_contexts_fit_together(runs: int) -> None:
    share = share_of_memory(80 * GIB, runs)
    assert runs * (share * 80 * GIB + CONTEXT_BYTES) == pytest.approx(80 * GIB)


def test_a_share_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="runs_per_gpu: 40 is too many for a GPU with 16 GiB"):
        share_of_memory(16 * GIB, 40)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_job_that_shares_a_gpu_is_out_of_memory_at_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SHARED, "2")
    device = pick_device("cuda")
    try:
        total = torch.cuda.get_device_properties(0).total_memory
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(total // 2, dtype=torch.uint8, device=device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
