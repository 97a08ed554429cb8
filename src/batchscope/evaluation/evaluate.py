"""A run's predictions and metrics: its best and its last checkpoint on validation and test."""

from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batchscope.data.tokens import Tokens, load_tokens
from batchscope.evaluation.metrics import measure
from batchscope.evaluation.predict import predict
from batchscope.evaluation.records import Measures, Metrics
from batchscope.evaluation.spec import EvaluationSpec
from batchscope.files import atomic, write_json
from batchscope.hardware.device import device_name, pick_place
from batchscope.model.checkpoint import load_checkpoint

Split = Literal["validation", "test"]
Which = Literal["best", "last"]
SPLITS: tuple[Split, ...] = ("validation", "test")
CHECKPOINTS: tuple[Which, ...] = ("best", "last")


def evaluate(
    spec: EvaluationSpec, tokens_folder: Path, checkpoints: dict[str, Path], output_folder: Path, device_wanted: str
) -> None:
    """Write ``predictions.parquet`` and ``metrics.json`` of a run to ``output_folder``.

    ``checkpoints`` holds the files of ``best`` and ``last``; if both are of one update, the model runs once. Raises
    UserError for a damaged checkpoint.
    """
    place = pick_place(device_wanted, spec.precision)
    tokens = {split: load_tokens(tokens_folder / f"{split}.arrow") for split in SPLITS}
    tables: list[pa.Table] = []
    measures: dict[tuple[Split, Which], Measures] = {}
    logits: dict[Split, NDArray[np.float32]] = {}
    update = None
    for checkpoint in CHECKPOINTS:
        model, facts = load_checkpoint(checkpoints[checkpoint], place.device)
        if facts["update"] != update:
            logits = {split: predict(model, tokens[split], *place) for split in SPLITS}
        update = facts["update"]
        for split in SPLITS:
            tables.append(_rows(tokens[split], logits[split], split, checkpoint))
            measures[split, checkpoint] = measure(logits[split], tokens[split].label)
    with atomic(output_folder / "predictions.parquet") as temporary:
        pq.write_table(pa.concat_tables(tables), temporary)
    metrics: Metrics = {
        "computed_with": {"device": device_name(place.device), "precision": place.precision_name},
        "validation": {"best": measures["validation", "best"], "last": measures["validation", "last"]},
        "test": {"best": measures["test", "best"], "last": measures["test", "last"]},
    }
    write_json(output_folder / "metrics.json", metrics)


def _rows(tokens: Tokens, logits: NDArray[np.float32], split: str, checkpoint: str) -> pa.Table:
    columns = {
        "example_id": pa.array(tokens.example_id, pa.int64()),
        "split": pa.repeat(split, len(tokens)),
        "checkpoint": pa.repeat(checkpoint, len(tokens)),
        "label": pa.array(tokens.label, pa.int64()),
    }
    return pa.table(columns | {f"logit_{c}": pa.array(logits[:, c]) for c in range(logits.shape[1])})
