"""Are the numbers of a run those of its checkpoints? `batchscope verify` computes them again and compares.

Counts must be equal; a logit and the mean loss may differ by the rounding of the arithmetic (``TOLERANCES``,
absolute): another number of threads or another device adds up in another order.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from batchscope.data.tokens import load_tokens
from batchscope.errors import UserError
from batchscope.evaluation.evaluate import CHECKPOINTS, SPLITS
from batchscope.evaluation.metrics import measure
from batchscope.evaluation.predict import predict
from batchscope.evaluation.records import Measures, Metrics
from batchscope.files import DamagedFileError, read_json
from batchscope.hardware.device import device_name, pick_device
from batchscope.model.checkpoint import load_checkpoint
from batchscope.provenance.fingerprint import file_hash
from batchscope.provenance.layout import Layout, checkpoints_of, run_files
from batchscope.provenance.records import RunManifest
from batchscope.provenance.stages import read_record

COUNTS: tuple[Literal["examples", "correct"], ...] = ("examples", "correct")
MEANS: tuple[Literal["loss", "nll", "brier"], ...] = ("loss", "nll", "brier")
TOLERANCES = {"float32": {"logit": 1e-3, "loss": 1e-4}, "bfloat16": {"logit": 0.25, "loss": 1e-2}}


MANIFEST_KEYS = {"files", "tokens", "corpus", "split", "precision", "device"}


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
    for each before that of the seed. A file that cannot be read is a check that failed. Raises UserError if the run is
    not finished.
    """
    for name in ("manifest.json", "metrics.json"):
        if not (run / name).is_file():
            raise UserError(
                f"{run} is not a finished run: {name} is missing. A run's folder looks like "
                "results/demo/runs/bert/bs64/constant/seed1"
            )
    try:
        manifest, metrics = _manifest(run / "manifest.json"), _metrics(run / "metrics.json")
        checks = list(_hashes(run, manifest))
        if all(check.passed for check in checks):
            checks += _numbers(run, manifest, metrics, pick_device(device_wanted))
        return checks
    except DamagedFileError as error:
        return [Check("files", False, str(error))]


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
    """Files against recorded hashes.

    The records of the run's jobs have those of its files, the manifest too, and of its tokenizer; the manifest has
    those of its tokens and of the corpus and split that these were made of. Results of an earlier version have no
    hashes in their records.
    """
    layout = Layout.of_run(run)
    expected = {layout.study / name: digest for name, digest in _recorded(layout, run).items()}
    expected |= {run / name: digest for name, digest in manifest["files"].items()}
    expected |= {_tokens_folder(run) / f"{split}.arrow": digest for split, digest in manifest["tokens"].items()}
    for digest, path in ((manifest["corpus"], layout.corpus), (manifest["split"], layout.split)):
        if digest:
            expected[path] = digest
    changed = [str(path) for path, digest in expected.items() if not path.is_file() or file_hash(path) != digest]
    if changed:
        yield Check("files", False, f"missing, or not what manifest and records say: {', '.join(changed)}")
    else:
        yield Check("files", True, f"{len(expected)} hashes are those of manifest and records")


def _recorded(layout: Layout, run: Path) -> dict[str, str]:
    """File below the study's folder → hash, as its model's tokens and the run's own jobs recorded them."""
    found: dict[str, str] = {}
    of_run = [f"{verb}/{Layout.name_of_run(run)}" for verb in ("train", "evaluate", "attention")]
    for job in (f"tokenize/{Layout.model_of_run(run)}", *of_run):
        record = read_record(layout.record(job))
        found |= record.get("files", {}) if record else {}
    return found


def _numbers(run: Path, manifest: RunManifest, metrics: Metrics, device: torch.device) -> Iterator[Check]:
    """Metrics against predictions, and both against what the checkpoints predict now."""
    predictions = _predictions(run / "predictions.parquet")
    columns = [name for name in predictions.columns if name.startswith("logit_")]
    made = metrics["computed_with"]
    precision = made["precision"]
    tolerance = TOLERANCES[precision]
    where = "" if device_name(device) == made["device"] else f" (made on {made['device']})"
    if (made["precision"], made["device"]) != (manifest["precision"], manifest["device"]):
        where += f"; trained in {manifest['precision']} on {manifest['device']}, predicted in {precision}"
    older = (run / "metrics.json").stat().st_mtime < (run / "manifest.json").stat().st_mtime
    again = "; the run was trained after this evaluation: start the workflow, which evaluates it again"
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
            yield check._replace(detail=check.detail + where + (again if older and not check.passed else ""))


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


def _predictions(path: Path) -> pd.DataFrame:
    """All stored predictions. Raises DamagedFileError."""
    try:
        predictions: pd.DataFrame = pq.read_table(path).to_pandas()
        return predictions[["split", "checkpoint", "example_id", "label"]].join(predictions.filter(regex="^logit_"))
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DamagedFileError(path, error) from None


def _manifest(path: Path) -> RunManifest:
    manifest = read_json(path)
    hashes = [manifest.get(key) for key in ("files", "tokens")] if isinstance(manifest, dict) else [None]
    if not all(isinstance(names, dict) and names for names in hashes) or not manifest.keys() >= MANIFEST_KEYS:
        raise DamagedFileError(path, ValueError("it does not name the run's files"))
    return cast(RunManifest, manifest)


def _metrics(path: Path) -> Metrics:
    metrics = read_json(path)
    try:
        measures = [metrics[split][checkpoint] for split in SPLITS for checkpoint in CHECKPOINTS]
        numbers = [measured[name] for measured in measures for name in (*COUNTS, *MEANS)]
        whole = all(isinstance(number, int | float) for number in numbers)
        whole = whole and metrics["computed_with"]["precision"] in TOLERANCES and "device" in metrics["computed_with"]
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise DamagedFileError(path, ValueError("it does not hold all measures"))
    return cast(Metrics, metrics)
