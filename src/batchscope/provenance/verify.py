"""Are the numbers of a run those of its checkpoints? `batchscope verify` computes them again and compares.

Counts must be equal; a logit and the mean loss may differ by the rounding of the arithmetic (``TOLERANCES``,
absolute): another number of threads or another device adds up in another order.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch

from batchscope.data.tokens import load_tokens
from batchscope.errors import UserError
from batchscope.evaluation.evaluate import CHECKPOINTS, SPLITS
from batchscope.evaluation.metrics import measure
from batchscope.evaluation.predict import predict
from batchscope.evaluation.records import Measures, Metrics
from batchscope.files import read_json
from batchscope.hardware.device import device_name, pick_device
from batchscope.model.checkpoint import load_checkpoint
from batchscope.provenance.fingerprint import file_hash
from batchscope.provenance.layout import Layout, checkpoints_of, run_files
from batchscope.provenance.records import RunManifest

COUNTS: tuple[Literal["examples", "correct"], ...] = ("examples", "correct")
MEANS: tuple[Literal["loss", "nll", "brier"], ...] = ("loss", "nll", "brier")
TOLERANCES = {"float32": {"logit": 1e-3, "loss": 1e-4}, "bfloat16": {"logit": 0.25, "loss": 1e-2}}


class Check(NamedTuple):
    """One comparison."""

    subject: str
    """What was compared."""
    passed: bool
    detail: str
    """What was found; where it failed, what differs."""


def verify_run(run: Path, device_wanted: str) -> list[Check]:
    """Compare a run's files with its manifest, its metrics with its predictions, and both with its checkpoints.

    ``run`` is ``results/{study}/runs/{model}/bs{batch}/{policy}/seed{seed}``; a study of several budgets has a folder
    for each before that of the seed. Raises UserError if it is not finished.
    """
    manifest: RunManifest = _read(run / "manifest.json")
    metrics: Metrics = _read(run / "metrics.json")
    checks = list(_hashes(run, manifest))
    if all(check.passed for check in checks):
        checks += _numbers(run, manifest, metrics, pick_device(device_wanted))
    return checks


def runs_of(study: Path) -> list[Path]:
    """Folders of the finished runs of a study. Raises UserError if there are none."""
    found = sorted(path.parent for pattern in run_files("metrics.json") for path in study.glob(pattern))
    if not found:
        raise UserError(f"{study} has no finished run; give a folder such as results/demo")
    return found


def table(results: dict[Path, list[Check]]) -> str:
    """A line per run and check."""
    lines = []
    for run, checks in results.items():
        lines.append(run.as_posix())
        lines += [f"  {'ok   ' if check.passed else 'WRONG'} {check.subject}: {check.detail}" for check in checks]
    return "\n".join(lines)


def _hashes(run: Path, manifest: RunManifest) -> Iterator[Check]:
    """Files against the hashes in the manifest: the run's own, its tokens, the corpus and split these were made of."""
    layout = Layout.of_run(run)
    expected = {run / name: digest for name, digest in manifest.get("files", {}).items()}
    expected |= {_tokens_folder(run) / f"{split}.arrow": digest for split, digest in manifest["tokens"].items()}
    for digest, path in ((manifest["corpus"], layout.corpus), (manifest["split"], layout.split)):
        if digest:
            expected[path] = digest
    changed = [str(path) for path, digest in expected.items() if not path.is_file() or file_hash(path) != digest]
    if changed:
        yield Check("files", False, f"missing, or not what the manifest says: {', '.join(changed)}")
    else:
        yield Check("files", True, f"{len(expected)} hashes are those of the manifest")


def _numbers(run: Path, manifest: RunManifest, metrics: Metrics, device: torch.device) -> Iterator[Check]:
    """Metrics against predictions, and both against what the checkpoints predict now."""
    predictions = pq.read_table(run / "predictions.parquet").to_pandas()
    columns = [name for name in predictions.columns if name.startswith("logit_")]
    made = metrics["computed_with"]
    precision = made["precision"]
    tolerance = TOLERANCES[precision]
    where = "" if device_name(device) == made["device"] else f" (made on {made['device']})"
    if (made["precision"], made["device"]) != (manifest["precision"], manifest["device"]):
        where += f"; trained in {manifest['precision']} on {manifest['device']}, predicted in {precision}"
    for checkpoint in CHECKPOINTS:
        model, _ = load_checkpoint(checkpoints_of(run)[checkpoint], device)
        for split in SPLITS:
            recorded = metrics[split][checkpoint]
            stored = predictions[(predictions.split == split) & (predictions.checkpoint == checkpoint)]
            stored_logits = stored[columns].to_numpy()
            yield _same(f"{checkpoint} on {split}, metrics.json", recorded, measure(stored_logits, stored.label), 1e-12)
            tokens = load_tokens(_tokens_folder(run) / f"{split}.arrow")
            logits = predict(model, tokens, device, getattr(torch, precision))
            now = measure(logits, tokens.label)
            check = _same(f"{checkpoint} on {split}, from the checkpoint", recorded, now, tolerance["loss"])
            furthest = _furthest(stored_logits, stored.example_id.to_numpy(), logits, tokens.example_id)
            if check.passed and furthest > tolerance["logit"]:
                detail = f"a logit of predictions.parquet differs by {furthest:.2g}, allowed are {tolerance['logit']:g}"
                check = Check(check.subject, False, detail)
            yield check._replace(detail=check.detail + where)


def _same(subject: str, recorded: Measures, now: Measures, tolerance: float) -> Check:
    """Counts exactly, the rest within the tolerance."""
    for name in COUNTS:
        if recorded[name] != now[name]:
            return Check(subject, False, f"{name} is {recorded[name]:,} in metrics.json and {now[name]:,} now")
    for mean in MEANS:
        if not abs(recorded[mean] - now[mean]) <= tolerance:
            return Check(subject, False, f"{mean} is {recorded[mean]:.6f} in metrics.json and {now[mean]:.6f} now")
    found = f"{now['correct']:,} of {now['examples']:,} correct, loss {now['loss']:.6f}"
    return Check(subject, True, f"{found}, off by {abs(recorded['loss'] - now['loss']):.1g}")


def _furthest(stored: np.ndarray, stored_id: np.ndarray, logits: np.ndarray, example_id: np.ndarray) -> float:
    """Largest difference of a logit, review by review; infinite if they are not of the same reviews."""
    if not np.array_equal(np.sort(stored_id), np.sort(example_id)):
        return float("inf")
    difference = stored[np.argsort(stored_id)] - logits[np.argsort(example_id)]
    return float(np.abs(difference).max())


def _tokens_folder(run: Path) -> Path:
    return Layout.of_run(run).tokens(Layout.model_of_run(run))


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError):
        raise UserError(
            f"{path.parent} is not a finished run: {path.name} is missing or damaged. A run's folder looks like "
            "results/demo/runs/bert/bs64/constant/seed1"
        ) from None
