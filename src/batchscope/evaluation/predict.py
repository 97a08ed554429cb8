"""Predictions of a model over one split."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from batchscope.data.tokens import Tokens, load_tokens
from batchscope.evaluation.metrics import measure
from batchscope.files import atomic, write_json
from batchscope.model import TextClassifier
from batchscope.training.checkpoint import load_checkpoint
from batchscope.training.device import autocast, pick_device, resolve_precision

TOKENS_PER_BATCH = 16_384
SPLITS = ("validation", "test")
CHECKPOINTS = ("best", "last")


@torch.inference_mode()
def predict(model: TextClassifier, tokens: Tokens, device: torch.device, precision: torch.dtype) -> np.ndarray:
    """Logits float32 ``[N, C]`` in the order of ``tokens``; dropout is off while it runs.

    Reviews of similar length share a batch, cut to its longest, so little padding is computed.
    """
    training = model.training
    model.eval()
    logits = np.empty((len(tokens.label), model.head.out_features), dtype=np.float32)
    by_length = np.argsort(tokens.length, kind="stable")
    batch_size = max(1, TOKENS_PER_BATCH // tokens.input_ids.shape[1])
    for start in range(0, len(by_length), batch_size):
        rows = by_length[start : start + batch_size]
        width = int(tokens.length[rows].max())
        input_ids = torch.from_numpy(tokens.input_ids[rows, :width].astype(np.int64)).to(device)
        length = torch.from_numpy(tokens.length[rows].astype(np.int64)).to(device)
        mask = torch.arange(width, device=device) < length.unsqueeze(1)
        with autocast(device, precision):
            logits[rows] = model(input_ids, mask).float().cpu().numpy()
    model.train(training)
    return logits


def evaluate(spec: dict[str, Any], tokens_folder: Path, run_folder: Path, device_wanted: str) -> None:
    """Write ``predictions.parquet`` and ``metrics.json`` of a run: best and last checkpoint on validation and test."""
    device = pick_device(device_wanted)
    precision = resolve_precision(spec["precision"], device)
    predictions: list[tuple[pa.Table, np.ndarray]] = []
    metrics: dict[str, dict[str, Any]] = {split: {} for split in SPLITS}
    tokens = {split: load_tokens(tokens_folder / f"{split}.arrow") for split in SPLITS}
    facts_of_best: dict[str, Any] = {}
    for checkpoint in CHECKPOINTS:
        model, facts = load_checkpoint(run_folder / "checkpoints" / f"{checkpoint}.safetensors", device)
        same_as_best = checkpoint == "last" and facts["epoch"] == facts_of_best["epoch"]
        facts_of_best = facts_of_best or facts
        for number, split in enumerate(SPLITS):
            logits = predictions[number][1] if same_as_best else predict(model, tokens[split], device, precision)
            predictions.append((_rows(tokens[split], logits, split, checkpoint), logits))
            metrics[split][checkpoint] = measure(logits, tokens[split].label)
    with atomic(run_folder / "predictions.parquet") as temporary:
        pq.write_table(pa.concat_tables([table for table, _ in predictions]), temporary)
    write_json(run_folder / "metrics.json", metrics)


def _rows(tokens: Tokens, logits: np.ndarray, split: str, checkpoint: str) -> pa.Table:
    count = len(tokens.label)
    columns = {
        "example_id": pa.array(tokens.example_id, pa.int64()),
        "split": pa.array([split] * count),
        "checkpoint": pa.array([checkpoint] * count),
        "label": pa.array(tokens.label, pa.int64()),
    }
    return pa.table(columns | {f"logit_{c}": pa.array(logits[:, c]) for c in range(logits.shape[1])})
