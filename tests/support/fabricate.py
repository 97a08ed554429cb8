"""A finished study's folder in the real file formats, written from random numbers with a fixed seed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fabricate_attention import windows_of, write_attention_tables
from fabricate_cartography import write_cartography
from fabricate_data import BINARY, CERTIFICATE, TEXT, audit, reviews, shared_out
from fabricate_reviews import write_test_reviews
from PIL import Image

from batchscope.config.study import Study
from batchscope.evaluation.metrics import measure
from batchscope.insight.calibration import measure_calibration
from batchscope.insight.embedding import measure_embedding
from batchscope.insight.errors import measure_errors
from batchscope.insight.spec import CalibrationSpec, EmbeddingSpec, ErrorsSpec
from batchscope.report.catalogue import figure_names
from batchscope.report.spec import GridCell, ReportSpec
from batchscope.training.spec import BudgetSpec
from batchscope.training.windows import windows

WORDS = TEXT.split()
HOSTILE = "<script>alert('pwned')</script> & a <b>bold</b> | claim"


def spec(**changes: Any) -> ReportSpec:
    """A report spec as the verb receives it: through JSON with sorted keys."""
    config = {
        "study": "fabricated",
        "data": {"source": "synthetic"},
        "models": {
            "modernbert": {"architecture": "modernbert"},
            "bert": {"architecture": "bert"},
        },
        "target_batch_sizes": [16, 64, 256],
        "lr_policies": {
            "sqrt": {"base_lr": 1e-3, "scaling": "sqrt", "reference_batch_size": 16},
            "constant": {"base_lr": 1e-3},
        },
        "seeds": [1, 2],
        "budget": {"epochs": 2},
    } | changes
    if "budgets" in changes:
        del config["budget"]
    plain = Study.from_mapping(config).report_spec().plain()
    return ReportSpec.read(json.loads(json.dumps(plain, sort_keys=True)))


@dataclass(frozen=True)
class Story:
    """What is to be seen in a fabricated study."""

    examples: int = 1024
    """Training examples."""
    test: int = 300
    """Test reviews, and validation reviews."""
    effect: float = 0.0
    """How much accuracy each larger batch size loses, about."""
    tokens: int = 24
    title: str = "A confident, correct review"
    classes: Sequence[str] = BINARY
    shares: Sequence[float] = (0.5, 0.5)
    """Of the classes among the reviews."""
    collapsed: Sequence[str] = ()
    """Runs whose best checkpoint predicts one class for every review."""
    diverged: Sequence[str] = ()
    """Runs whose training loss ends above that of guessing."""
    crossing: int = 2
    """Reviews of each split that also appear in each other split."""
    left_out: Sequence[tuple[str, str]] = ()
    """Name and reason of what was left out of the source."""
    manifests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Run → what its manifest says otherwise."""
    predicted_on: Mapping[str, str] = field(default_factory=dict)
    """Run → the device of its predictions."""
    branch_losses: Mapping[int, float | None] = field(default_factory=lambda: {1: 0.4, 2: 0.4, 4: 0.405, 8: 0.45})
    """Factor of a branch → its training loss; None for one that diverges."""
    mapped: int = 60
    """Training examples whose probabilities are known after every epoch."""
    no_attention: Mapping[str, str] = field(default_factory=dict)
    """Model → why it gives no attention."""


def study_folder(folder: Path, report_spec: ReportSpec, **story: Any) -> Path:
    """Write data and runs of a finished study; ``story`` holds fields of ``Story``."""
    told = Story(**story)
    rng = np.random.default_rng(7)
    described = audit(
        report_spec.model_names, tuple(told.classes), tuple(told.shares), told.crossing, tuple(told.left_out)
    )
    _write_json(folder / "data/audit.json", described)
    _write_json(folder / "data/reviews.json", reviews(report_spec, told.title))
    for model in report_spec.models:
        _write_json(folder / f"certificates/{model}.json", CERTIFICATE)
    done = set()
    for cell in report_spec.cells:
        if cell.run in done:
            continue
        done.add(cell.run)
        run = folder / "runs" / cell.run
        _write_training(run, cell, rng, told, report_spec)
        accuracy = 0.85 - told.effect * report_spec.batch_sizes.index(cell.batch)
        _write_predictions(run, rng, told, accuracy, cell.run)
        _write_attention(run, cell.model, report_spec, rng, told)
        if report_spec.branches and cell.run in report_spec.branches.runs:
            _write_json(run / "branches.json", branches_file(cell.batch, told.branch_losses))
    if report_spec.attention_measures:
        write_attention_tables(folder, report_spec, told.no_attention, rng)
    if report_spec.calibration:
        measure_calibration(CalibrationSpec(cells=report_spec.cells, bins=15), folder)
    if report_spec.cartography:
        write_cartography(folder, report_spec, told.mapped)
    if report_spec.errors:
        runs = [cell.run for cell in report_spec.cells]
        write_test_reviews(folder, report_spec.model_names, runs[0], list(told.classes))
        measure_errors(
            ErrorsSpec(cells=report_spec.cells, boundary=1.0, hardest=report_spec.errors.hardest, truncation="head"),
            folder,
        )
        if report_spec.errors.embedding:
            _embed(folder, report_spec)
    return folder


def _embed(folder: Path, report_spec: ReportSpec) -> None:
    """Features of 40 test reviews, or fewer, whose first axis is the margin; and their embedding."""
    first = report_spec.cells[0]
    cells = [
        cell
        for cell in report_spec.cells
        if (cell.policy, cell.budget, cell.seed) == (first.policy, first.budget, first.seed)
    ]
    for number, cell in enumerate(cells):
        run = folder / "runs" / cell.run
        wanted = [("split", "==", "test"), ("checkpoint", "==", "best")]
        rows = pq.read_table(run / "predictions.parquet", filters=wanted)
        rows = rows.sort_by("example_id").slice(0, 40)
        features = np.random.default_rng(number).normal(size=(len(rows), 4)).astype(np.float32)
        features[:, 0] += 2 * (rows["logit_1"].to_numpy() - rows["logit_0"].to_numpy())
        column = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), 4)
        pq.write_table(pa.table({"example_id": rows["example_id"], "features": column}), run / "features.parquet")
    measure_embedding(EmbeddingSpec(cells=tuple(cells), reviews=40, boundary=1.0), folder)


def small_figures(folder: Path, report_spec: ReportSpec) -> None:
    """Small pictures in place of a study's figures."""
    (folder / "figures").mkdir()
    for entry in figure_names(report_spec):
        path = folder / "figures" / entry.name
        if path.suffix == ".svg":
            path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="30" height="20"/>')
        else:
            Image.new("RGB", (30, 20), "#8a2f6b").save(path)


def _write_training(run: Path, cell: GridCell, rng: np.random.Generator, story: Story, spec: ReportSpec) -> None:
    lines: list[dict[str, Any]] = []
    validations: list[dict[str, Any]] = []
    examples, budget = story.examples, BudgetSpec.read(spec.budgets[cell.budget].model_dump())
    for window in windows(examples, cell.batch, budget):
        size, update, samples = window.examples, window.update, window.samples
        correct = int(rng.binomial(size, 0.9 - 0.4 * np.exp(-update / 40)))
        loss = float(0.2 + 0.5 * np.exp(-update / 40) + rng.normal(0, 0.3 / np.sqrt(size)))
        scores = {"loss": loss, "correct": correct, "examples": size, "accuracy": correct / size}
        place = {"update": update, "epoch": window.epoch, "samples": samples}
        estimates = _noise(size, update, np.random.default_rng(samples)) if spec.measures_noise else {}
        lines.append({"kind": "update"} | place | scores | {"lr": cell.learning_rate, "grad_norm": 1.0} | estimates)
        if spec.validates_within_epochs and update % 2 == 0 and not window.ends_epoch:
            within = _scores(int(rng.binomial(300, 0.8)), 300, 0.4)
            lines.append({"kind": "validation"} | place | {"validation": within})
        if window.ends_epoch:
            validation = _scores(int(rng.binomial(300, 0.86)), 300, 0.35)
            validations.append(validation)
            said = {"train": _scores(int(examples * 0.8), examples, 0.4), "validation": validation}
            lines.append({"kind": "epoch"} | place | said)
    epochs = len(validations)
    run.mkdir(parents=True)
    (run / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    best = max(range(epochs), key=lambda epoch: validations[epoch]["correct"])
    seconds = float(rng.uniform(10, 14))
    facts = {
        "best_epoch": best + 1,
        "best_update": [line["update"] for line in lines if line["kind"] == "epoch"][best],
        "best_validation": validations[best],
        "validation_times": [
            {"update": line["update"], "seconds": line["samples"] / 100} for line in lines if line["kind"] != "update"
        ],
        "training_flops_per_sample": 1e9,
        "epochs": epochs,
        "updates": update,
        "samples": samples,
        "train_examples": examples,
        "diverged": cell.run in story.diverged,
        "seconds": seconds + 1,
        "training_seconds": seconds,
        "validation_seconds": 0.5,
        "samples_per_second": samples / seconds,
        "update_seconds_p50": 0.1,
        "update_seconds_p95": 0.2,
        "peak_memory_bytes": 400_000_000,
        "device": "cpu",
        "device_type": "cpu",
        "precision": "float32",
        "determinism": "fast",
        "ranks": 1,
        "physical_batch_size": 16,
        "trial": {"micro_step": "eager"},
        "parameters": 1_234_567,
        "data_wait_seconds": 0.01,
        "gpu_utilisation_mean": None,
        "gpu_utilisation_peak": None,
        "energy_joules": None,
        "jobs_per_gpu": None,
        "windows_per_epoch": {"full": examples // cell.batch, "tail": 0, "tail_examples": 0},
    }
    _write_json(run / "train.json", facts)
    _write_json(
        run / "manifest.json", MANIFEST | {"fingerprint": f"{update:016x}"} | dict(story.manifests.get(cell.run, {}))
    )


def branches_file(batch: int, losses: Mapping[int, float | None], at: int = 256, samples: int = 512) -> dict[str, Any]:
    """``branches.json`` of a run with branches of constant loss from one point."""
    branches = []
    for factor, loss in losses.items():
        size = factor * batch
        updates = [
            {"samples": at + (number + 1) * size, "examples": size, "correct": size // 2, "accuracy": 0.5}
            | {"loss": 0.0 if loss is None else loss, "lr": 1e-3 * factor**0.5, "grad_norm": 1.0}
            for number in range(samples // size)
        ]
        shown = {"factor": factor, "target_batch_size": size, "diverged": loss is None}
        equal = {"equals_run": True if factor == 1 else None}
        branches.append(shown | equal | {"updates": updates[:1] if loss is None else updates})
    point = {"at": at, "update": at // batch, "samples": at, "state": "kept", "branches": branches}
    place = {"device": "cpu", "precision": "float32", "physical_batch_size": 16}
    return {"training": "0" * 16, "points": [point]} | place


MANIFEST: dict[str, Any] = {
    "spec": {},
    "code": "0" * 16,
    "initial_weights": {"random": "bert"},
    "corpus": "c" * 64,
    "split": "5" * 64,
    "tokens": {"train": "7" * 64, "validation": "8" * 64, "test": "9" * 64},
    "files": {"history.jsonl": "1" * 64},
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "platform": "Linux",
    "device": "cpu",
    "device_type": "cpu",
    "driver": None,
    "precision": "float32",
    "determinism": "fast",
    "physical_batch_size": 16,
    "ranks": 1,
    "git": {"revision": "a" * 40, "dirty": False},
    "reused_from": None,
}


def _noise(size: int, update: int, rng: np.random.Generator) -> dict[str, float | None]:
    """A noise scale around 100 that rises; null for the windows of one micro-batch of 16."""
    if size <= 16:
        return {"gradient_square": None, "noise_trace": None}
    square = float(rng.normal(1.0, 8 / np.sqrt(size)))
    return {"gradient_square": square, "noise_trace": float(rng.normal(100 + update, 20))}


def _write_predictions(run: Path, rng: np.random.Generator, story: Story, accuracy: float, name: str) -> None:
    rows: list[pa.Table] = []
    device = story.predicted_on.get(name, "cpu")
    metrics: dict[str, Any] = {"computed_with": {"device": device, "precision": "float32"}}
    count, classes = story.test, len(story.classes)
    for number, split in enumerate(("validation", "test")):
        metrics[split] = {}
        per_class = shared_out(count, tuple(story.shares))
        labels = np.arange(count) % 2 if classes == 2 else np.repeat(np.arange(classes), per_class)
        difficulty = np.random.default_rng(number).normal(size=count)
        for checkpoint in ("best", "last"):
            margin = 3 * (accuracy - 0.5) + 1.2 * difficulty + rng.normal(0, 0.5, count)
            logits = np.zeros((count, classes), dtype=np.float32)
            logits[np.arange(count), (labels + 1 + np.arange(count) % (classes - 1)) % classes] = 1e-3
            logits[np.arange(count), labels] = margin
            if name in story.collapsed:
                logits[:] = np.eye(classes)[-1]
            metrics[split][checkpoint] = measure(logits, labels)
            ids = rng.permutation(count) if checkpoint == "best" else np.arange(count)
            columns = {"example_id": ids + 1000 * number, "split": [split] * count, "checkpoint": [checkpoint] * count}
            scores = {"label": labels[ids]} | {f"logit_{c}": logits[ids, c] for c in range(classes)}
            rows.append(pa.table(columns | scores))
    pq.write_table(pa.concat_tables(rows), run / "predictions.parquet")
    _write_json(run / "metrics.json", metrics)


def _write_attention(run: Path, model: str, spec: ReportSpec, rng: np.random.Generator, story: Story) -> None:
    n = story.tokens
    (run / "attention").mkdir()
    measures: dict[str, Any] = {"classes": list(story.classes), "reviews": []}
    windows = windows_of(model)
    tokens = ["[CLS]", *(WORDS[i % len(WORDS)] for i in range(n - 2)), "[SEP]"]
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    arrays = {}
    for facts in reviews(spec, story.title)["reviews"]:
        layers = np.exp(rng.normal(size=(len(windows), n, n)) * 0.6 + 4 * (np.arange(n) % 13 == 0) - distance / 9)
        for layer, window in enumerate(windows):
            layers[layer][distance > (n if window is None else window)] = 0
        weights = layers / layers.sum(2, keepdims=True)
        arrays[facts["name"]] = weights.astype(np.float16)
        heads = np.stack([weights, np.roll(weights, 1, axis=0)], 1)
        largest = heads.max((2, 3)).astype(np.float32)
        arrays[f"{facts['name']}.levels"] = (heads / largest[:, :, None, None] * 255).round().astype(np.uint8)
        arrays[f"{facts['name']}.largest"] = largest
        measured = {"entropy": 0.5, "largest_weight": 0.3, "special_share": 0.2, "diagonal_share": 0.1}
        described = [{"layer": layer, "window": window} | measured for layer, window in enumerate(windows)]
        words = [place - (place > 3) for place in range(n)]
        shares = {"words": words, "rollout": (np.arange(1, n + 1) * 2 / n / (n + 1)).tolist()}
        said = {"tokens": tokens, "prediction": 1, "probability": 0.972, "layers": described} | shares
        measures["reviews"].append({key: facts[key] for key in ("name", "title", "text", "label")} | said)
    if model in story.no_attention:
        arrays, measures["reason"] = {}, story.no_attention[model]
        for review in measures["reviews"]:
            review["layers"] = review["rollout"] = []
    np.savez_compressed(run / "attention/attention.npz", **arrays)
    _write_json(run / "attention/measures.json", measures)


def _scores(correct: int, examples: int, loss: float) -> dict[str, Any]:
    return {"correct": correct, "examples": examples, "accuracy": correct / examples, "loss": loss}


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
