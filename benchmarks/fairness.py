"""The condition for being timed: the same gradient as Batchscope's on the first window, in float32 without dropout."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from batchscope.certificate.peers import quietly
from batchscope.training.gradients import compare
from benchmarks.classifier import Classifier
from benchmarks.contenders import ours
from benchmarks.work import Work

TOLERANCE = 1e-4
"""Largest difference of any element, relative to the largest element: what float32 rounding is certified to."""

Train = Callable[[Work], None]


def compared_gradients(peers: dict[str, Train], work: Work) -> dict[str, dict[str, Any]]:
    """Peer → its measures against our gradient (see ``compare``), and ``passed``. ``work`` is without dropout."""
    work = replace(work, updates=1, precision="float32", facts={})
    expected = gradient_of(ours.train, work)
    rows: dict[str, dict[str, Any]] = {}
    for name, train in peers.items():
        measures = compare(gradient_of(train, work), expected)
        difference = measures["largest_difference"]
        rows[name] = measures | {"passed": difference is not None and difference <= TOLERANCE}
    return rows


def contenders(names: list[str]) -> dict[str, Train]:
    """The training functions of some contenders."""
    return {name: import_module(f"benchmarks.contenders.{name}").train for name in names}


class WatchedWork(Work):
    """Work that remembers the model it gave."""

    def classifier(self) -> Classifier:
        self.facts["model"] = super().classifier()
        return self.facts["model"]


def gradient_of(train: Train, work: Work) -> Tensor:
    """What ``train`` gives its optimizer at its one update, float64 ``[parameters]``, in the model's own order."""
    watched = WatchedWork(**vars(work) | {"facts": {}})
    seen: list[dict[nn.Parameter, Tensor]] = []

    def look(optimizer: Optimizer, *_: Any) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        seen.append({p: (torch.zeros_like(p) if p.grad is None else p.grad).detach().clone() for p in parameters})

    # After the step, not before: Lightning runs the forward and backward pass inside of it.
    hook = register_optimizer_step_post_hook(look)
    try:
        with quietly():
            train(watched)
    finally:
        hook.remove()
    if len(seen) != 1:
        raise RuntimeError(f"{len(seen)} updates, not one")
    # Trainer's optimizer groups its parameters by whether they decay; our training builds its own model, in one group.
    order = watched.facts["model"].parameters() if "model" in watched.facts else list(seen[0])
    return torch.cat([seen[0][parameter].flatten().to("cpu", torch.float64) for parameter in order])
