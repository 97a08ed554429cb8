"""Predictions of a model: the logits of one split."""

import numpy as np
import torch
from numpy.typing import NDArray

from batchscope.data.tokens import Tokens
from batchscope.hardware.device import autocast
from batchscope.model.classifier import TextClassifier

TOKENS_PER_BATCH = 16_384
WIDTH_STEP = 16
"""Batches have few different widths, because the CPU library caches a kernel and its memory for every shape."""


@torch.inference_mode()
def predict(model: TextClassifier, tokens: Tokens, device: torch.device, precision: torch.dtype) -> NDArray[np.float32]:
    """Logits float32 ``[N, C]`` in the order of ``tokens``, with dropout off.

    Reviews of similar length share a batch, cut to about its longest, so that little padding is computed. Tokens go to
    the device batch by batch and the logits stay there until all are done, so that the host never waits for the device.
    Apart from the logits, the memory used does not depend on N.
    """
    training = model.training
    model.eval()
    by_length = np.argsort(tokens.length, kind="stable")
    logits = torch.empty((len(tokens), model.head.out_features), dtype=torch.float32, device=device)
    batch_size = max(1, TOKENS_PER_BATCH // tokens.input_ids.shape[1])
    with autocast(device, precision):
        for start in range(0, len(tokens), batch_size):
            rows = by_length[start : start + batch_size]
            width = min(_round_up(int(tokens.length[rows[-1]])), tokens.input_ids.shape[1])
            input_ids = _sent(tokens.input_ids[rows, :width].astype(np.int32), device).long()
            length = _sent(tokens.length[rows], device)
            mask = torch.arange(width, device=device) < length.unsqueeze(1)
            logits[start : start + batch_size] = model(input_ids, mask)
    model.train(training)
    in_order = np.empty(logits.shape, dtype=np.float32)
    in_order[by_length] = logits.cpu().numpy()
    return in_order


def _round_up(width: int) -> int:
    """The next multiple of WIDTH_STEP."""
    return -(-width // WIDTH_STEP) * WIDTH_STEP


def _sent(array: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """Copy an array to the device without waiting for the copy to end."""
    host = torch.from_numpy(array)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)
