"""A model's gradient as one vector, and the distance between two such vectors."""

import math

import torch
from torch import Tensor, nn


def flat_gradient(model: nn.Module) -> Tensor:
    """Every parameter's gradient, float64 ``[parameters]`` on the CPU; zeros for a parameter without one."""
    pieces = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters() if p.requires_grad]
    return torch.cat([piece.detach().flatten().to("cpu", torch.float64) for piece in pieces])


def compare(found: Tensor, expected: Tensor) -> dict[str, float | None]:
    """Two gradients, float64 ``[parameters]``: ``largest_difference`` is max|a−b| / max|b|, ``relative_l2`` is
    ‖a−b‖ / ‖b‖, ``norm_ratio`` is ‖a‖ / ‖b‖, and their ``cosine``. None replaces a value that is not finite."""
    difference = found - expected
    norm, expected_norm = found.norm(), expected.norm()
    measures = {
        "largest_difference": difference.abs().max() / expected.abs().max(),
        "relative_l2": difference.norm() / expected_norm,
        "norm_ratio": norm / expected_norm,
        "cosine": (found @ expected / (norm * expected_norm)).clamp(-1, 1),
    }
    return {name: float(value) if math.isfinite(value) else None for name, value in measures.items()}
