"""Attention maps of a run's best checkpoint: the same reviews for every run, heads averaged, padding dropped."""

import logging
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from batchscope.data.encode import Encoded, encode
from batchscope.data.records import ReviewsFile, ShownReview
from batchscope.data.tokens import load_tokens
from batchscope.errors import UserError
from batchscope.files import atomic, read_json, write_json
from batchscope.hardware.device import pick_device
from batchscope.insight.records import AttentionMeasures, LayerMeasures, ReviewMeasures
from batchscope.insight.spec import AttentionSpec
from batchscope.insight.token_text import token_texts
from batchscope.model.checkpoint import load_checkpoint
from batchscope.model.classifier import TextClassifier

log = logging.getLogger(__name__)

ROW_SUM = 1e-3
"""Largest difference of a map's row from 1."""


def attend(
    spec: AttentionSpec,
    tokens_folder: Path,
    reviews: Path,
    checkpoint: Path,
    output_folder: Path,
    device_wanted: str,
) -> None:
    """Write ``attention/attention.npz`` and ``attention/measures.json`` of a run to ``output_folder``.

    The reviews are cut as ``spec`` says, which is how the training's were cut. The maps of one review are in memory
    at a time. Where the encoder gives no full maps, the archive is empty and ``reason`` says why.
    """
    device = pick_device(device_wanted)
    model, _ = load_checkpoint(checkpoint, device)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokens_folder / "tokenizer")
    chosen: ReviewsFile = read_json(reviews)
    ids = [_ids(encode(tokenizer, [review["text"]], spec.max_length, spec.truncation)) for review in chosen["reviews"]]
    classes = load_tokens(tokens_folder / "validation.arrow").classes
    measures: AttentionMeasures = {"classes": classes, "reviews": []}
    if reason := why_no_attention(model, max(ids, key=len)):
        measures["reason"] = reason
        log.info(reason)
    with (
        atomic(output_folder / "attention" / "attention.npz") as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as maps,
    ):
        for review, its_ids in zip(chosen["reviews"], ids, strict=True):
            weights, measured = _measured(model, tokenizer, review, its_ids, with_maps=reason is None)
            if weights is not None:
                _append(maps, review["name"], weights.astype(np.float16))
            measures["reviews"].append(measured)
    write_json(output_folder / "attention" / "measures.json", measures)


def _ids(encoded: Encoded) -> NDArray[np.int64]:
    """Token ids ``[n]`` of one review, without padding."""
    return encoded.input_ids[0, : encoded.length[0]].astype(np.int64)


def _measured(
    model: TextClassifier,
    tokenizer: PreTrainedTokenizerFast,
    review: ShownReview,
    ids: NDArray[np.int64],
    with_maps: bool,
) -> tuple[NDArray[Any] | None, ReviewMeasures]:
    """Maps and measures of one review, token ids ``ids`` ``[n]``; without maps the prediction alone."""
    weights, layers = None, []
    input_ids = torch.from_numpy(ids).to(next(model.parameters()).device)
    if with_maps:
        weights, probabilities = attention_maps(model, input_ids)
        layers = measures_of_layers(weights, model.config, np.isin(ids, tokenizer.all_special_ids))
    else:
        probabilities = _probabilities(model, input_ids)
    prediction = int(probabilities.argmax())
    measured: ReviewMeasures = {
        "name": review["name"],
        "title": review["title"],
        "text": review["text"],
        "label": review["label"],
        "tokens": token_texts(tokenizer, ids.tolist()),
        "prediction": prediction,
        "probability": float(probabilities[prediction]),
        "layers": layers,
    }
    return weights, measured


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


def _append(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    """Add an array to an archive that ``numpy.load`` reads; no entry has a date, so equal maps are equal bytes."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


@torch.inference_mode()
def attention_maps(model: TextClassifier, input_ids: torch.Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
    """Compute the attention of one unpadded review, int64 ``[n]``: weights ``[layers, n, n]`` and class
    probabilities ``[C]``.

    Rows are queries and sum to 1; the heads are averaged. One forward pass gives both. A layer's weights by head are
    freed before the next layer computes its own. Raises UserError for an encoder that gives no full maps.
    """
    with averaged_attention(model, len(input_ids)) as layers:
        probabilities = _probabilities(model, input_ids)
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
def _probabilities(model: TextClassifier, input_ids: torch.Tensor) -> NDArray[Any]:
    """Class probabilities ``[C]`` of one unpadded review, int64 ``[n]``."""
    ids, mask = input_ids.unsqueeze(0), torch.ones(1, len(input_ids), dtype=torch.bool, device=input_ids.device)
    probabilities: NDArray[Any] = model(ids, mask).softmax(1)[0].float().cpu().numpy()
    return probabilities


@contextmanager
def averaged_attention(model: TextClassifier, tokens: int) -> Iterator[list[torch.Tensor]]:
    """A list to which each layer adds its weights ``[n, n]``, averaged over the heads, while the context lasts.

    Only the eager implementation computes weights, and some encoders return them only where ``output_attentions``
    asks for them. The weights are taken out of what an attention module returns: nothing keeps them by head, and a
    module around it does not return them a second time. Encoders whose modules return something else are asked for
    their ``attentions`` at the end.
    """
    layers: list[torch.Tensor] = []

    def is_map(weights: Any) -> bool:
        return (
            isinstance(weights, torch.Tensor)
            and weights.ndim == 4
            and (weights.shape[0] == 1 and weights.shape[2:] == (tokens, tokens))
        )

    def take(module: torch.nn.Module, arguments: Any, output: Any) -> Any:
        if not isinstance(output, tuple) or len(output) < 2 or not is_map(output[1]):
            return None
        layers.append(output[1][0].mean(0))
        return (output[0], None, *output[2:])

    def take_all(module: torch.nn.Module, arguments: Any, output: Any) -> None:
        attentions = getattr(output, "attentions", None) or ()
        if not layers and all(is_map(weights) for weights in attentions):
            layers.extend(weights[0].mean(0) for weights in attentions)

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


def layer_windows(config: PretrainedConfig, layers: int) -> list[int | None]:
    """Per layer the largest |i − j| it may attend over; None where attention is global."""
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * layers
    return [config.sliding_window if kind == "sliding_attention" else None for kind in kinds]


def measures_of_layers(
    weights: NDArray[Any], config: PretrainedConfig, special: NDArray[np.bool_]
) -> list[LayerMeasures]:
    """Measures of each of a review's maps, ``weights`` ``[layers, n, n]``; ``special`` ``[n]`` marks special tokens."""
    windows = layer_windows(config, len(weights))
    return [map_measures(number, *pair, special) for number, pair in enumerate(zip(weights, windows, strict=True))]


def map_measures(layer: int, weights: NDArray[Any], window: int | None, special: NDArray[np.bool_]) -> LayerMeasures:
    """Measures of one map ``[n, n]``, each a mean over its n rows (queries)."""
    positions = np.arange(len(weights))
    distance = np.abs(positions[:, None] - positions[None, :])
    allowed = (distance <= (len(weights) if window is None else window)).sum(1)
    row_entropy = -(weights * np.log(np.where(weights > 0, weights, 1.0))).sum(1)
    normalised = row_entropy[allowed > 1] / np.log(allowed[allowed > 1])
    return {
        "layer": layer,
        "window": window,
        "entropy": float(normalised.mean()) if len(normalised) else 0.0,
        "largest_weight": float(weights.max(1).mean()),
        "special_share": float(weights[:, special].sum(1).mean()),
        "diagonal_share": float(weights.diagonal().mean()),
    }
