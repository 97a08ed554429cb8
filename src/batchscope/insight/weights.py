"""The attention weights of an encoder, by layer and averaged over the heads; and whether it gives any."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from batchscope.errors import UserError
from batchscope.model.classifier import TextClassifier

ROW_SUM = 1e-3
"""Largest difference of a map's row from 1."""
LEVELS = 255
Watch = Callable[[torch.Tensor], None]


def unwatched(heads: torch.Tensor) -> None:
    """Ignore a layer's weights by head."""


def why_no_attention(model: TextClassifier, ids: NDArray[np.int64]) -> str | None:
    """Why there can be no attention maps of this encoder, in one sentence; None where there can be.

    Tries one unpadded review, token ids ``[n]``. Some encoders have full maps of short reviews alone.
    """
    training = model.training
    try:
        attention_maps(model.eval(), torch.from_numpy(ids).to(next(model.parameters()).device))
    except UserError as error:
        return str(error)
    except Exception as error:  # an encoder's own code, in an implementation that nothing else uses
        words = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return (
            f"no attention maps: the {model.config.model_type} encoder cannot compute its attention weights ({words})"
        )
    finally:
        model.train(training)
    return None


@torch.inference_mode()
def attention_maps(
    model: TextClassifier, input_ids: torch.Tensor, watch: Watch = unwatched
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Compute the attention of one unpadded review, int64 ``[n]``: weights ``[layers, n, n]`` and class
    probabilities ``[C]``.

    Rows are queries and sum to 1; the heads are averaged. One forward pass gives both. ``watch`` is called with each
    layer's weights by head ``[H, n, n]``, which are freed before the next layer computes its own. Raises UserError for
    an encoder that gives no full maps.
    """
    with averaged_attention(model, len(input_ids), watch) as layers:
        probabilities = class_probabilities(model, input_ids)
    kind, expected = model.config.model_type, getattr(model.config, "num_hidden_layers", 1)
    if not layers:
        raise UserError(
            f"no attention maps: the {kind} encoder of transformers gives no weights of every token on every other"
        )
    if len(layers) < expected:
        raise UserError(
            f"no attention maps: the {kind} encoder gives weights of {len(layers)} of its {expected} layers"
        )
    weights = torch.stack(layers).float().cpu().numpy()
    if not np.allclose(weights.sum(2), 1, atol=ROW_SUM):
        raise UserError(
            f"no attention maps: the {kind} encoder's attention weights are not shares, they do not sum to 1"
        )
    return weights, probabilities


@torch.inference_mode()
def class_probabilities(model: TextClassifier, input_ids: torch.Tensor) -> NDArray[Any]:
    """Class probabilities ``[C]`` of one unpadded review, int64 ``[n]``."""
    ids, mask = input_ids.unsqueeze(0), torch.ones(1, len(input_ids), dtype=torch.bool, device=input_ids.device)
    probabilities: NDArray[Any] = model(ids, mask).softmax(1)[0].float().cpu().numpy()
    return probabilities


@contextmanager
def averaged_attention(model: TextClassifier, tokens: int, watch: Watch = unwatched) -> Iterator[list[torch.Tensor]]:
    """A list to which each layer adds its weights ``[n, n]``, averaged over the heads, while the context lasts.

    Only the eager implementation computes weights, and some encoders return them only where ``output_attentions``
    asks for them. The weights are taken out of what an attention module returns: nothing keeps them by head, and a
    module around it does not return them a second time. Encoders whose modules return something else are asked for
    their ``attentions`` at the end.
    """
    layers: list[torch.Tensor] = []

    def add(heads: torch.Tensor) -> None:
        watch(heads)
        layers.append(heads.mean(0))

    def is_map(weights: Any) -> bool:
        return (
            isinstance(weights, torch.Tensor)
            and weights.ndim == 4
            and (weights.shape[0] == 1 and weights.shape[2:] == (tokens, tokens))
        )

    def take(module: torch.nn.Module, arguments: Any, output: Any) -> Any:
        if not isinstance(output, tuple) or len(output) < 2 or not is_map(output[1]):
            return None
        add(output[1][0])
        return (output[0], None, *output[2:])

    def take_all(module: torch.nn.Module, arguments: Any, output: Any) -> None:
        attentions = getattr(output, "attentions", None) or ()
        if not layers and all(is_map(weights) for weights in attentions):
            for weights in attentions:
                add(weights[0])

    config = model.encoder.config
    implementation, asked = config._attn_implementation, config.output_attentions
    model.encoder.set_attn_implementation("eager")
    config.output_attentions = True
    hooks = [
        module.register_forward_hook(take) for module in model.encoder.modules() if "Attention" in type(module).__name__
    ]
    hooks.append(model.encoder.register_forward_hook(take_all))
    try:
        yield layers
    finally:
        for hook in hooks:
            hook.remove()
        config.output_attentions = asked
        model.encoder.set_attn_implementation(implementation)


def quantised(heads: torch.Tensor) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Weights ``[H, n, n]`` as levels from 0 to 255, and the weight ``[H]`` of each head that level 255 stands for.

    Half a level is the largest error: 1/510 of a head's largest weight.
    """
    largest = heads.float().amax((1, 2)).clamp(min=torch.finfo(torch.float32).tiny)
    levels = (heads.float() / largest[:, None, None] * LEVELS).round().to(torch.uint8)
    return levels.cpu().numpy(), largest.cpu().numpy()
