"""Attention maps of a run's best checkpoint: the same reviews for every run, heads averaged, padding dropped."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from batchscope.data.encode import encode
from batchscope.data.tokens import load_tokens
from batchscope.errors import UserError
from batchscope.files import atomic, read_json, write_json
from batchscope.hardware.device import pick_device
from batchscope.model.checkpoint import load_checkpoint
from batchscope.model.classifier import TextClassifier


def attend(
    spec: dict[str, Any],
    tokens_folder: Path,
    reviews: Path,
    checkpoint: Path,
    output_folder: Path,
    device_wanted: str,
) -> None:
    """Write ``attention/attention.npz`` and ``attention/measures.json`` of a run to ``output_folder``.

    ``spec`` holds ``max_length`` and ``truncation``: the reviews are cut as the training's were. The maps of one
    review are in memory at a time.
    """
    device = pick_device(device_wanted)
    model, _ = load_checkpoint(checkpoint, device)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokens_folder / "tokenizer")
    measures = []
    with (
        atomic(output_folder / "attention" / "attention.npz") as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as maps,
    ):
        for review in read_json(reviews)["reviews"]:
            encoded = encode(tokenizer, [review["text"]], spec["max_length"], spec["truncation"])
            ids = encoded.input_ids[0, : encoded.length[0]].astype(np.int64)
            layers, probabilities = attention_maps(model, torch.from_numpy(ids).to(device))
            _append(maps, review["name"], layers.astype(np.float16))
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
    classes = load_tokens(tokens_folder / "validation.arrow").classes
    write_json(output_folder / "attention" / "measures.json", {"classes": classes, "reviews": measures})


def _append(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    """Add an array to an archive that ``numpy.load`` reads; no entry has a date, so equal maps are equal bytes."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


@torch.inference_mode()
def attention_maps(model: TextClassifier, input_ids: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Attention of one unpadded review, int64 ``[n]``: weights ``[layers, n, n]`` and class probabilities ``[C]``.

    Rows are queries and sum to 1; the heads are averaged. One forward pass gives both, and a layer's weights by head
    are gone before the next layer has its own. Raises UserError for an encoder that gives no weights.
    """
    ids, mask = input_ids.unsqueeze(0), torch.ones(1, len(input_ids), dtype=torch.bool, device=input_ids.device)
    with averaged_attention(model, len(input_ids)) as layers:
        probabilities = model(ids, mask).softmax(1)[0]
    if not layers:
        raise UserError(f"the {model.config.model_type} encoder of transformers returns no attention weights")
    return torch.stack(layers).float().cpu().numpy(), probabilities.float().cpu().numpy()


@contextmanager
def averaged_attention(model: TextClassifier, tokens: int) -> Iterator[list[torch.Tensor]]:
    """A list that each layer adds its weights ``[n, n]`` to, averaged over the heads, while the context lasts.

    Only the eager implementation makes weights, and some encoders hand them out only where ``output_attentions``
    asks for them. Each attention module's are taken out of what it returns, so that nobody keeps them by head, and
    a module around it does not give them a second time.
    """
    layers: list[torch.Tensor] = []

    def take(module: torch.nn.Module, arguments: Any, output: Any) -> Any:
        if not isinstance(output, tuple) or len(output) < 2 or not isinstance(output[1], torch.Tensor):
            return None
        weights = output[1]
        if weights.ndim != 4 or weights.shape[0] != 1 or weights.shape[2:] != (tokens, tokens):
            return None
        layers.append(weights[0].mean(0))
        return (output[0], None, *output[2:])

    config = model.encoder.config
    implementation, asked = config._attn_implementation, config.output_attentions
    model.encoder.set_attn_implementation("eager")
    config.output_attentions = True
    hooks = [
        module.register_forward_hook(take) for module in model.encoder.modules() if "Attention" in type(module).__name__
    ]
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
