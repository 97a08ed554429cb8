"""Numbers on their way from the device: asked for when an update is launched, read when the next one is.

A read waits for all that was launched before it, and a GPU that waits for Python idles. So the host stays one update
ahead. Not to step over a loss that is not finite then needs a guard on the device.
"""

import torch
from torch import Tensor
from torch.optim import Optimizer


class Reading:
    """A copy of some scalars and vectors of the device, under way to the host."""

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
        """All values in order, once they are here."""
        if self._event is not None:
            self._event.synchronize()
        values: list[float] = self._values.tolist()
        return values


class Guard:
    """Holds a fused optimizer still from the first loss or gradient norm on that is not finite.

    It uses the flag by which PyTorch's gradient scaler skips a step. The flag stays up: what was launched afterwards,
    before the host knew, changes nothing either, so the weights stay those before the update that failed.
    """

    def __init__(self, optimizer: Optimizer, device: torch.device) -> None:
        assert optimizer.defaults["fused"]
        self.raised = torch.zeros((), device=device)
        optimizer.found_inf = self.raised  # type: ignore[attr-defined]

    def watch(self, loss: Tensor, grad_norm: Tensor) -> None:
        """Raise the flag unless both are finite; to be called before the step."""
        self.raised.copy_(torch.maximum(self.raised, (~torch.isfinite(loss + grad_norm)).to(self.raised.dtype)))
