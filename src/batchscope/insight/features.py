"""The pooled features of test reviews from a run's best checkpoint: what its linear head classifies."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from batchscope.data.tokens import Tokens, load_tokens
from batchscope.errors import counted
from batchscope.evaluation.predict import predict
from batchscope.files import atomic
from batchscope.hardware.device import pick_place
from batchscope.insight.review_batches import drawn_reviews
from batchscope.insight.spec import FeaturesSpec
from batchscope.model.checkpoint import load_checkpoint

log = logging.getLogger(__name__)


def write_features(spec: FeaturesSpec, tokens_folder: Path, checkpoint: Path, output: Path, device_wanted: str) -> None:
    """Write the features of ``spec.reviews`` test reviews, or of all if there are fewer, in the order of their lengths.

    Columns: ``example_id`` (int64) and ``features`` (fixed_size_list[H] of float32). The reviews are the same for every
    run of a model, and the features are those of its predictions, bit for bit. They go to the file batch by batch.
    """
    place = pick_place(device_wanted, spec.precision)
    model, _ = load_checkpoint(checkpoint, place.device)
    tokens = load_tokens(tokens_folder / "test.arrow")
    chosen = subset(tokens, drawn_reviews(len(tokens), spec.reviews))
    # As `predict` batches them: so the next rows are always those of the next batch.
    example_id = chosen.example_id[np.argsort(chosen.length, kind="stable")]
    width = model.head.in_features
    schema = pa.schema([("example_id", pa.int64()), ("features", pa.list_(pa.float32(), width))])
    with atomic(output) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        written = 0

        def write(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            nonlocal written
            features = inputs[0].float().cpu().numpy()
            rows = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), width)
            ids = pa.array(example_id[written : written + len(features)])
            writer.write_table(pa.table([ids, rows], schema=schema))
            written += len(features)

        hook = model.head.register_forward_pre_hook(write)
        try:
            predict(model, chosen, *place)
        finally:
            hook.remove()
    assert written == len(chosen)
    log.info(f"wrote the features of {counted(written, 'review')}, {width} each")


def subset(tokens: Tokens, rows: NDArray[np.int64]) -> Tokens:
    """Some reviews, in the order of ``rows``."""
    names = ("example_id", "label", "input_ids", "length", "truncated")
    return replace(tokens, **{name: getattr(tokens, name)[rows] for name in names})
