"""Numbers on their way from the device: requested when an update is launched, read when the next one is.

A read waits for everything launched before it, and the GPU idles while it waits for Python. So the host stays one
update ahead. A guard on the device then keeps the optimizer from stepping with a loss that is not finite.
"""

import torch
from torch import Tensor
from torch.optim import Optimizer


class Reading:
    """A copy of some scalars and vectors of the device, on its way to the host."""

    def __init__(self, *tensors: Tensor) -> None:
        values = torch.cat([tensor.detach().reshape(-1).double() for tensor in tensors])
        self._event: torch.cuda.Event | None = None
        self._values = values
        if values.is_cuda:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def values(self) -> list[float]:
        """All values in order; waits until they have arrived."""
        if self._event is not None:
            self._event.synchronize()
        values: list[float] = self._values.tolist()
        return values


class Guard:
    """Stops a fused optimizer at the first loss or gradient norm that is not finite.

    It uses the flag with which PyTorch's gradient scaler skips a step. The flag stays raised: updates launched before
    the host knew change nothing either, so the weights stay those before the update that failed.
    """

    def __init__(self, optimizer: Optimizer, device: torch.device) -> None:
        assert optimizer.defaults["fused"]
        self.raised = torch.zeros((), device=device)
        optimizer.found_inf = self.raised  # type: ignore[attr-defined]

    def watch(self, loss: Tensor, grad_norm: Tensor) -> None:
        """Raise the flag unless both are finite. Call it before the step."""
        self.raised.copy_(torch.maximum(self.raised, (~torch.isfinite(loss + grad_norm)).to(self.raised.dtype)))
