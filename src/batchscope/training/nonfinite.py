"""Explains a loss or gradient that is not finite."""

import math

import torch
from torch.nn.functional import cross_entropy

from batchscope.data.tokens import Tokens
from batchscope.model.classifier import TextClassifier
from batchscope.training.microbatch import DeviceTokens
from batchscope.training.windows import Window


def offending_examples(model: TextClassifier, data: DeviceTokens, rows: torch.Tensor, tokens: Tokens) -> list[int]:
    """Ids of the reviews among ``rows`` (int64 ``[b]``, of ``tokens``) whose own loss without dropout is not finite."""
    model.eval()
    found = []
    with torch.no_grad():
        for row in rows:
            batch = data.micro_batch(row[None], 1.0)
            if not bool(cross_entropy(model(batch.input_ids, batch.attention_mask), batch.label).isfinite()):
                found.append(int(tokens.example_id[int(row)]))
    return found


def explain(window: Window, loss: float, norm: float, learning_rate: float, culprits: list[int]) -> str:
    """What is not finite in the update of ``window``, which reviews cause it, and what to change."""
    what = f"the gradient norm became {norm}" if math.isfinite(loss) else f"the loss became {loss}"
    if not culprits:
        where = "no single review of the window has such a loss: the weights or the gradient overflowed"
    elif len(culprits) == window.examples:
        where = f"every review of the window has such a loss: the weights were lost in update {window.update - 1}"
    else:
        listed = ", ".join(map(str, culprits[:10])) + (", …" if len(culprits) > 10 else "")
        where = f"the reviews with such a loss (example_id in data/corpus.parquet): {listed}"
    return (
        f"{what} in update {window.update} at learning rate {learning_rate:g}; {where}.\n"
        "Lower the learning rate of this policy, add `schedule: {warmup: 0.1}` or `optimizer: {max_grad_norm: 1.0}`."
    )
