"""Attention maps of a run's best checkpoint: the same reviews for every run, heads averaged, padding dropped."""

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
from batchscope.insight.spec import AttentionSpec
from batchscope.insight.token_text import token_texts
from batchscope.insight.weights import attention_maps, class_probabilities, why_no_attention
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
        probabilities = class_probabilities(model, input_ids)
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
