"""What a model loses without its attention sinks: each head's sink is removed, and the margin is measured again.

In each review the sink of a head is the key with most attention, if the queries that may see it give it more than
``SINK_EPSILON`` on average. Its column is set to 0 and each row divided by what is left of it, as if the softmax had
run over the other keys. The sinks are those of the untouched model: what later layers attend to once earlier ones have
lost their sinks does not change what is removed. Two comparisons tell what that is worth: all special tokens removed
from every head, and in place of each sink another key of the same head and review, drawn at random.

One batch of reviews is in memory at a time, and of it the weights of the layer at work.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from batchscope.data.tokens import Tokens
from batchscope.insight.attention import layer_windows
from batchscope.insight.heads import SINK_EPSILON, Batch, every_layer
from batchscope.insight.records import Ablation, LayerSet, Removed
from batchscope.insight.review_batches import batches, by_length
from batchscope.model.classifier import TextClassifier

DRAW_SEED = 0
QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
Change = Callable[[int, Tensor], Tensor]


class Cut(NamedTuple):
    """One ablation."""

    removed: Removed
    layers: LayerSet


def why_no_ablation(model: TextClassifier, ids: NDArray[np.int64]) -> str | None:
    """Why this encoder's attention cannot be changed, in one sentence; None where it can. Tries one review ``[n]``."""
    if model.head.out_features < 2:
        return "no ablation: a margin needs two classes"
    seen: list[int] = []

    def keep(layer: int, weights: Tensor) -> Tensor:
        seen.append(layer)
        return weights

    on_device = torch.from_numpy(ids).to(next(model.parameters()).device)[None]
    with torch.inference_mode(), changed_attention(model.eval(), keep):
        model(on_device, torch.ones_like(on_device, dtype=torch.bool))
    expected = getattr(model.config, "num_hidden_layers", 1)
    if len(seen) == expected:
        return None
    return (
        f"no ablation: the {model.config.model_type} encoder computes the attention of {expected - len(seen)} of its "
        f"{expected} layers in code of its own"
    )


@contextmanager
def changed_attention(model: TextClassifier, change: Change) -> Iterator[None]:
    """While the context lasts, layers mix their values with ``change(layer, weights)``, not with their weights.

    ``weights``: ``[B, H, L, L]``, rows are queries. The weights are those of the encoder's own eager implementation.
    """
    layers = 0

    def attend(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> Any:
        nonlocal layers
        eager = vars(sys.modules[type(module).__module__])["eager_attention_forward"]
        _, weights = eager(module, query, key, value, *rest, **named)
        changed = change(layers, weights)
        layers += 1
        shared = weights.shape[1] // value.shape[1]
        mixed = changed.to(value.dtype) @ (value if shared == 1 else value.repeat_interleave(shared, 1))
        return mixed.transpose(1, 2).contiguous(), changed

    def begin(module: torch.nn.Module, arguments: Any) -> None:
        nonlocal layers
        layers = 0

    implementation = model.encoder.config._attn_implementation
    model.encoder.set_attn_implementation("eager")
    hook = model.encoder.register_forward_pre_hook(begin)
    # Encoders look their attention up here by the name of the implementation; without an entry they use their own.
    ALL_ATTENTION_FUNCTIONS["eager"] = attend
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS["eager"]
        hook.remove()
        model.encoder.set_attn_implementation(implementation)


def without(weights: Tensor, removed: Tensor, allowed: Tensor) -> Tensor:
    """Weights ``[B, H, L, L]`` without the keys ``removed`` (bool ``[B, H, L]`` or ``[B, 1, L]``), renormalised.

    Each row is divided by what is left of it. A row with nothing left becomes even attention to the other keys of
    ``allowed`` (bool ``[B, L, L]``). A row that may see no other key stays as it is.
    """
    left = weights.masked_fill(removed[:, :, None], 0)
    total = left.sum(3, keepdim=True)
    others = (allowed[:, None] & ~removed[:, :, None]).to(weights.dtype)
    count = others.sum(3, keepdim=True)
    even = torch.where(count > 0, others / count.clamp(min=1), weights)
    return torch.where(total > 0, left / total.clamp(min=torch.finfo(weights.dtype).tiny), even)


class Sinks(NamedTuple):
    """The keys to remove from each layer of one batch, bool ``[B, H, L]``."""

    sink: list[Tensor]
    random: list[Tensor]
    """As many other keys, drawn at random, of the same heads and reviews."""


@torch.inference_mode()
def ablate(
    model: TextClassifier, tokens: Tokens, chosen: NDArray[np.int64], special: NDArray[np.bool_]
) -> list[Ablation]:
    """The margins of the chosen reviews with and without some keys, one record per ablation.

    ``special`` ``[V]`` marks the special tokens. For an encoder with no reason of ``why_no_ablation``.
    """
    windows = layer_windows(model.config, getattr(model.config, "num_hidden_layers", 1))
    cuts = cuts_of(windows)
    device, is_special = next(model.parameters()).device, torch.from_numpy(special)
    labels = torch.from_numpy(tokens.label[by_length(tokens, chosen)])
    before: list[Tensor] = []
    after: dict[Cut, list[Tensor]] = {cut: [] for cut in cuts}
    shares: list[Tensor] = []
    dice = torch.Generator().manual_seed(DRAW_SEED)
    for ids, mask in batches(tokens, chosen, device):
        known = {window: Batch(mask, torch.zeros_like(ids), window) for window in set(windows)}
        logits, sinks = _untouched(model, ids, mask, [known[window] for window in windows], dice)
        before.append(logits)
        shares.append(torch.stack([layer.any(2).float().mean(1) for layer in sinks.sink], 1).cpu())
        everywhere = [(is_special.to(device)[ids] & mask)[:, None]] * len(windows)
        for cut in cuts:
            removed = {"sink": sinks.sink, "random key": sinks.random}.get(cut.removed, everywhere)
            keys = [
                layer if _holds(cut.layers, window) else None for layer, window in zip(removed, windows, strict=True)
            ]
            with changed_attention(model.eval(), _removal(keys, [known[window] for window in windows])):
                after[cut].append(model(ids, mask).double().cpu())
    with_sink = torch.cat(shares).mean(0).numpy()
    held = {cut: [_holds(cut.layers, window) for window in windows] for cut in cuts}
    return [
        compared(cut, torch.cat(before), torch.cat(after[cut]), labels, float(with_sink[held[cut]].mean()))
        for cut in cuts
    ]


def _removal(keys: Sequence[Tensor | None], batch_of: Sequence[Batch]) -> Change:
    """The change that removes ``keys``, per layer bool ``[B, H, L]`` or ``[B, 1, L]``; None leaves a layer as it is."""

    def change(layer: int, weights: Tensor) -> Tensor:
        removed = keys[layer]
        return weights if removed is None else without(weights, removed, batch_of[layer].allowed)

    return change


def cuts_of(windows: Sequence[int | None]) -> list[Cut]:
    """Every ablation: of all layers; and of the global and the sliding ones alone where there are both."""
    mixed = None in windows and any(window is not None for window in windows)
    sets: tuple[LayerSet, ...] = ("all", "global", "sliding") if mixed else ("all",)
    removed: tuple[Removed, ...] = ("sink", "random key", "special tokens")
    return [Cut(what, layers) for layers in sets for what in removed]


def _holds(layers: LayerSet, window: int | None) -> bool:
    return layers == "all" or (layers == "global") == (window is None)


def _untouched(
    model: TextClassifier, ids: Tensor, mask: Tensor, batch_of: Sequence[Batch], dice: torch.Generator
) -> tuple[Tensor, Sinks]:
    """Logits of one batch, float64 on the CPU, and each layer's keys to remove."""
    found = Sinks([], [])

    def use(layer: int, weights: Tensor) -> None:
        batch = batch_of[layer]
        received = batch.received(batch.inside(weights.float()))
        largest = received.max(2, keepdim=True)
        sink = torch.zeros_like(received, dtype=torch.bool).scatter_(2, largest.indices, largest.values > SINK_EPSILON)
        drawn = torch.rand(received.shape, generator=dice).to(received.device)
        drawn = drawn.masked_fill(sink | ~mask[:, None], -1)
        place = drawn.max(2, keepdim=True)
        has = sink.any(2, keepdim=True) & (place.values >= 0)
        found.sink.append(sink)
        found.random.append(torch.zeros_like(sink).scatter_(2, place.indices, has))

    with every_layer(model.eval(), use):
        logits = model(ids, mask).double().cpu()
    return logits, found


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the label minus the largest other one, ``[N]``, of logits ``[N, C]``."""
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return own[:, 0] - others.max(1).values


def compared(cut: Cut, before: Tensor, after: Tensor, labels: Tensor, with_sink: float) -> Ablation:
    """Logits ``[N, C]`` with all keys and without some, put into one record."""
    first, second = margins(before, labels), margins(after, labels)
    change = second - first
    spread = torch.quantile(change, torch.tensor(list(QUANTILES.values()), dtype=change.dtype)).tolist()
    return {
        "removed": cut.removed,
        "layers": cut.layers,
        "reviews": len(labels),
        "with_sink": with_sink,
        "margin": float(first.mean()),
        "change": float(change.mean()),
        "change_quantiles": dict(zip(QUANTILES, spread, strict=True)),
        "flips": int((before.argmax(1) != after.argmax(1)).sum()),
        "correct_before": int((before.argmax(1) == labels).sum()),
        "correct_after": int((after.argmax(1) == labels).sum()),
    }
