"""The attention of a run's best checkpoint over many test reviews, measured per layer and head."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from batchscope.data.tokens import Tokens, load_tokens
from batchscope.errors import counted
from batchscope.files import write_json
from batchscope.hardware.device import pick_device
from batchscope.insight.attention import layer_windows
from batchscope.insight.heads import Batch, HeadSums, RolloutSums, every_layer
from batchscope.insight.key_classes import key_classes
from batchscope.insight.records import AttentionOfRun
from batchscope.insight.spec import AttentionMeasuresSpec
from batchscope.insight.weights import why_no_attention
from batchscope.model.checkpoint import load_checkpoint
from batchscope.model.classifier import TextClassifier

log = logging.getLogger(__name__)
TOKENS_PER_BATCH = 2048
WIDTH_STEP = 16
DRAW_SEED = 0


def measure_attention(
    spec: AttentionMeasuresSpec, tokens_folder: Path, checkpoint: Path, output: Path, device_wanted: str
) -> None:
    """Write ``attention/heads.json`` of a run: measures over ``spec.reviews`` test reviews, or all if there are fewer.

    The reviews are the same for every run of a model. Where the encoder gives no attention, ``reason`` says why.
    """
    device = pick_device(device_wanted)
    model, _ = load_checkpoint(checkpoint, device)
    tokens = load_tokens(tokens_folder / "test.arrow")
    chosen = drawn_reviews(len(tokens), spec.reviews)
    found: AttentionOfRun = {"asked": spec.reviews, "reviews": len(chosen), "heads": [], "rollout": {}}
    longest = chosen[np.argmax(tokens.length[chosen])]
    ids = tokens.input_ids[longest, : tokens.length[longest]].astype(np.int64)
    if reason := why_no_attention(model, ids):
        log.info(reason)
        write_json(output, found | {"reason": reason})
        return
    classes = key_classes(PreTrainedTokenizerFast.from_pretrained(tokens_folder / "tokenizer"))
    sums, rolled = measured(model, tokens, chosen, classes)
    found["heads"] = [head for layer, part in enumerate(sums) for head in part.measures(layer)]
    found["rollout"] = rolled.lift()
    write_json(output, found)
    log.info(f"measured {counted(len(found['heads']), 'head')} on {counted(len(chosen), 'review')}")


def drawn_reviews(there: int, wanted: int) -> NDArray[np.int64]:
    """Positions of the reviews that are measured, ascending: drawn once and for all, or all if there are no more."""
    order = np.random.default_rng(DRAW_SEED).permutation(there)
    return np.sort(order[:wanted])


def batches(
    tokens: Tokens, chosen: NDArray[np.int64], device: torch.device, most: int = TOKENS_PER_BATCH
) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids and mask ``[B, L]`` of the chosen reviews, at most ``most`` at a time, of similar length."""
    by_length = chosen[np.argsort(tokens.length[chosen], kind="stable")]
    start = 0
    while start < len(by_length):
        rows = by_length[start : start + min(most, _rows_from(tokens, by_length, start))]
        width = min(-(-int(tokens.length[rows].max()) // WIDTH_STEP) * WIDTH_STEP, tokens.input_ids.shape[1])
        ids = torch.from_numpy(tokens.input_ids[rows, :width].astype(np.int64)).to(device)
        length = torch.from_numpy(tokens.length[rows].astype(np.int64)).to(device)
        yield ids, torch.arange(width, device=device) < length[:, None]
        start += len(rows)


def _rows_from(tokens: Tokens, by_length: NDArray[np.int64], start: int) -> int:
    """Reviews of the batch that begins at ``start``: as many as fit when each is as long as the last of them."""
    longest = int(tokens.length[by_length[min(start + TOKENS_PER_BATCH // WIDTH_STEP, len(by_length)) - 1]])
    return max(1, TOKENS_PER_BATCH // max(WIDTH_STEP, longest))


@torch.inference_mode()
def measured(
    model: TextClassifier, tokens: Tokens, chosen: NDArray[np.int64], classes: NDArray[np.int8]
) -> tuple[list[HeadSums], RolloutSums]:
    """The sums of every layer, and the rollout, over the chosen reviews. ``classes`` ``[V]``: of ``key_classes``."""
    device = next(model.parameters()).device
    class_of = torch.from_numpy(classes.astype(np.int64)).to(device)
    windows = layer_windows(model.config, getattr(model.config, "num_hidden_layers", 1))
    sums, rolled = [HeadSums(window) for window in windows], RolloutSums()
    known: dict[int | None, Batch] = {}

    def use(layer: int, weights: Tensor) -> None:
        batch = known[windows[layer]]
        inside = batch.inside(weights.float())
        sums[layer].add(inside, batch)
        rolled.step(inside)

    with every_layer(model.eval(), use):
        for ids, mask in batches(tokens, chosen, device):
            known.clear()
            known |= {window: Batch(mask, class_of[ids], window) for window in {*windows, None}}
            model(ids, mask)
            rolled.end(known[None])
    return sums, rolled
