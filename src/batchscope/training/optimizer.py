"""The optimizer of a run, and its learning rate at each update."""

import torch

from batchscope.training.schedule import schedule_factor
from batchscope.training.spec import TrainSpec

OPTIMIZERS: dict[str, type[torch.optim.Adam] | type[torch.optim.AdamW]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def make_optimizer(spec: TrainSpec, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Adam or AdamW over all parameters of ``model``, in one fused kernel."""
    return OPTIMIZERS[spec.optimizer.name](
        model.parameters(),
        lr=spec.learning_rate,
        betas=spec.optimizer.betas,
        eps=spec.optimizer.eps,
        weight_decay=spec.optimizer.weight_decay,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, spec: TrainSpec, update: int, updates: int) -> float:
    """Set the learning rate of ``update`` (from 1) of ``updates``; returns it."""
    warmup_updates = round(spec.schedule.warmup * updates)
    factor = schedule_factor(spec.schedule.name, update - 1, updates, warmup_updates)
    for group in optimizer.param_groups:
        group["lr"] = spec.learning_rate * factor
    return spec.learning_rate * factor
