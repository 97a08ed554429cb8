"""Attention maps of a run's best checkpoint: the same reviews for every run, padding dropped.

Heads are averaged for the figures; each head's map, in 256 levels, is for the viewer of the report.
"""

import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from batchscope.data.encode import Encoded, encode
from batchscope.data.records import ReviewsFile, ShownReview
from batchscope.data.tokens import load_tokens
from batchscope.files import atomic, read_json, write_json
from batchscope.hardware.device import pick_device
from batchscope.insight.records import AttentionMeasures, LayerMeasures, ReviewMeasures
from batchscope.insight.rollout import pooled_rollout
from batchscope.insight.spec import AttentionSpec
from batchscope.insight.token_text import token_texts, word_numbers
from batchscope.insight.weights import attention_maps, class_probabilities, quantised, why_no_attention
from batchscope.model.checkpoint import load_checkpoint
from batchscope.model.classifier import TextClassifier

log = logging.getLogger(__name__)


def attend(
    spec: AttentionSpec,
    tokens_folder: Path,
    reviews: Path,
    checkpoint: Path,
    output_folder: Path,
    device_wanted: str,
) -> None:
    """Write ``attention/attention.npz`` and ``attention/measures.json`` of a run to ``output_folder``.

    The archive holds of each review NAME the weights ``NAME`` (float16 ``[layers, n, n]``, heads averaged), and of
    every head ``NAME.levels`` (uint8 ``[layers, H, n, n]``) and ``NAME.largest`` (float32 ``[layers, H]``), see
    ``quantised``. The reviews are cut as ``spec`` says, which is how the training's were cut. The maps of one review
    are in memory at a time. Where the encoder gives no full maps, the archive is empty and ``reason`` says why.
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
            arrays, measured = _measured(model, tokenizer, review, its_ids, with_maps=reason is None)
            for name, array in arrays.items():
                _append(maps, name, array)
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
) -> tuple[dict[str, NDArray[Any]], ReviewMeasures]:
    """Arrays and measures of one review, token ids ``ids`` ``[n]``; without maps the prediction alone."""
    arrays: dict[str, NDArray[Any]] = {}
    layers, shares = [], np.empty(0)
    input_ids = torch.from_numpy(ids).to(next(model.parameters()).device)
    if with_maps:
        heads: list[tuple[NDArray[np.uint8], NDArray[np.float32]]] = []
        weights, probabilities = attention_maps(model, input_ids, lambda layer: heads.append(quantised(layer)))
        levels, largest = (np.stack(part) for part in zip(*heads, strict=True))
        name = review["name"]
        arrays = {name: weights.astype(np.float16), f"{name}.levels": levels, f"{name}.largest": largest}
        shares = pooled_rollout(weights)
        layers = measures_of_layers(weights, model.config, np.isin(ids, tokenizer.all_special_ids))
    else:
        probabilities = class_probabilities(model, input_ids)
    prediction = int(probabilities.argmax())
    measured: ReviewMeasures = {
        "name": review["name"],
        "title": review["title"],
        "text": review["text"],
        "label": review["label"],
        "tokens": token_texts(tokenizer, ids.tolist()),
        "words": word_numbers(tokenizer, ids.tolist()),
        "rollout": [float(share) for share in shares],
        "prediction": prediction,
        "probability": float(probabilities[prediction]),
        "layers": layers,
    }
    return arrays, measured


def _append(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    """Add an array to an archive that ``numpy.load`` reads; no entry has a date, so equal maps are equal bytes."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


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
