"""The attention of a run's best checkpoint over many test reviews, measured per layer and head."""

import logging
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
from batchscope.insight.ablation import ablate, why_no_ablation
from batchscope.insight.attention import layer_windows
from batchscope.insight.heads import Batch, HeadSums, RolloutSums, every_layer
from batchscope.insight.key_classes import key_classes
from batchscope.insight.records import AttentionOfRun
from batchscope.insight.review_batches import batches, drawn_reviews
from batchscope.insight.spec import AttentionMeasuresSpec
from batchscope.insight.weights import why_no_attention
from batchscope.model.checkpoint import load_checkpoint
from batchscope.model.classifier import TextClassifier

log = logging.getLogger(__name__)


def measure_attention(
    spec: AttentionMeasuresSpec, tokens_folder: Path, checkpoint: Path, output: Path, device_wanted: str
) -> None:
    """Write ``attention/heads.json`` of a run: measures over ``spec.reviews`` test reviews, or all if there are fewer,
    and the ablation of its sinks over ``spec.ablation_reviews``.

    The reviews are the same for every run of a model. Where the encoder gives no attention, ``reason`` says why.
    """
    device = pick_device(device_wanted)
    model, _ = load_checkpoint(checkpoint, device)
    tokens = load_tokens(tokens_folder / "test.arrow")
    chosen = drawn_reviews(len(tokens), spec.reviews)
    found: AttentionOfRun = {"asked": spec.reviews, "reviews": len(chosen), "heads": [], "rollout": {}, "ablation": []}
    longest = chosen[np.argmax(tokens.length[chosen])]
    ids = tokens.input_ids[longest, : tokens.length[longest]].astype(np.int64)
    if reason := why_no_attention(model, ids):
        log.info(reason)
        write_json(output, found | {"reason": reason})
        return
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokens_folder / "tokenizer")
    classes = key_classes(tokenizer)
    sums, rolled = measured(model, tokens, chosen, classes)
    found["heads"] = [head for layer, part in enumerate(sums) for head in part.measures(layer)]
    found["rollout"] = rolled.lift()
    if reason := why_no_ablation(model, ids):
        found["no_ablation"] = reason
    else:
        special = np.isin(np.arange(len(classes)), tokenizer.all_special_ids)
        found["ablation"] = ablate(model, tokens, drawn_reviews(len(tokens), spec.ablation_reviews), special)
    write_json(output, found)
    log.info(f"measured {counted(len(found['heads']), 'head')} on {counted(len(chosen), 'review')}")


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
