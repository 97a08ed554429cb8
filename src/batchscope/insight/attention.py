"""Attention maps of a run's best checkpoint: the same reviews for every run, heads averaged, padding dropped."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from batchscope.data.tokens import encode, load_tokens
from batchscope.errors import UserError
from batchscope.files import atomic, read_json, write_json
from batchscope.model import TextClassifier
from batchscope.training.checkpoint import load_checkpoint
from batchscope.training.device import pick_device


def attend(spec: dict[str, Any], tokens_folder: Path, reviews: Path, run_folder: Path, device_wanted: str) -> None:
    """Write ``attention/attention.npz`` and ``attention/measures.json`` of a run.

    ``spec`` holds ``max_length`` and ``truncation``: the reviews are cut as the training's were.
    """
    device = pick_device(device_wanted)
    model, _ = load_checkpoint(run_folder / "checkpoints" / "best.safetensors", device)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokens_folder / "tokenizer")
    classes = load_tokens(tokens_folder / "validation.arrow").classes
    maps: dict[str, Any] = {}
    measures = []
    for review in read_json(reviews)["reviews"]:
        padded, length, _ = encode(tokenizer, [review["text"]], spec["max_length"], spec["truncation"])
        ids = padded[0, : length[0]].astype(np.int64)
        layers, probabilities = attention_maps(model, torch.from_numpy(ids).to(device))
        maps[review["name"]] = layers.astype(np.float16)
        special = np.isin(ids, tokenizer.all_special_ids)
        windows = layer_windows(model.config, len(layers))
        prediction = int(probabilities.argmax())
        measures.append(
            {key: review[key] for key in ("name", "title", "text", "label")}
            | {
                "tokens": tokenizer.convert_ids_to_tokens(ids.tolist()),
                "prediction": prediction,
                "probability": float(probabilities[prediction]),
                "layers": [
                    {"layer": number, "window": window} | map_measures(weights, window, special)
                    for number, (weights, window) in enumerate(zip(layers, windows, strict=True))
                ],
            }
        )
    with atomic(run_folder / "attention" / "attention.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **maps)
    write_json(run_folder / "attention" / "measures.json", {"classes": classes, "reviews": measures})


@torch.inference_mode()
def attention_maps(model: TextClassifier, input_ids: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Attention of one unpadded review, int64 ``[n]``: weights ``[layers, n, n]`` and class probabilities ``[C]``.

    Rows are queries and sum to 1. Only the eager implementation returns weights; the heads are averaged.
    """
    model.encoder.set_attn_implementation("eager")
    ids, mask = input_ids.unsqueeze(0), torch.ones(1, len(input_ids), dtype=torch.bool, device=input_ids.device)
    output = model.encoder(input_ids=ids, attention_mask=mask, output_attentions=True)
    if not output.attentions or output.attentions[0] is None:
        raise UserError(f"the {model.config.model_type} encoder of transformers returns no attention weights")
    weights = torch.stack([layer[0].mean(0) for layer in output.attentions])
    return weights.float().cpu().numpy(), model(ids, mask).softmax(1)[0].cpu().numpy()


def layer_windows(config: PretrainedConfig, layers: int) -> list[int | None]:
    """Per layer the largest |i − j| it may attend over; None where attention is global."""
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * layers
    return [config.sliding_window if kind == "sliding_attention" else None for kind in kinds]


def map_measures(weights: np.ndarray, window: int | None, special: np.ndarray) -> dict[str, float]:
    """Measures of one map ``[n, n]``, each a mean over its n rows (queries).

    ``entropy``: Shannon entropy over the logarithm of the number of *allowed* keys: 0 is one key, 1 is uniform.
    ``largest_weight``: the row's maximum. ``special_share``: weight on special tokens (``special`` bool ``[n]``).
    ``diagonal_share``: weight of a token on itself.
    """
    positions = np.arange(len(weights))
    distance = np.abs(positions[:, None] - positions[None, :])
    allowed = (distance <= (len(weights) if window is None else window)).sum(1)
    row_entropy = -(weights * np.log(np.where(weights > 0, weights, 1.0))).sum(1)
    normalised = row_entropy[allowed > 1] / np.log(allowed[allowed > 1])
    return {
        "entropy": float(normalised.mean()) if len(normalised) else 0.0,
        "largest_weight": float(weights.max(1).mean()),
        "special_share": float(weights[:, special].sum(1).mean()),
        "diagonal_share": float(weights.diagonal().mean()),
    }
