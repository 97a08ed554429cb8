"""A finished study's folder in the real file formats, written from random numbers with a fixed seed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchscope.config.study import Study
from batchscope.evaluation.metrics import measure
from batchscope.report.catalogue import names_in_order

TEXT = "the film was a quiet triumph , though its $ ending felt borrowed and slow ."
WORDS = TEXT.split()
HOSTILE = "<script>alert('pwned')</script> & a <b>bold</b> | claim"


def spec(**changes: Any) -> dict[str, Any]:
    """A report spec as the verb receives it: through canonical JSON, which sorts the keys."""
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
    report_spec = Study.from_mapping(config).report_spec()
    decoded: dict[str, Any] = json.loads(json.dumps(report_spec, sort_keys=True))
    return decoded


def study_folder(
    folder: Path,
    report_spec: dict[str, Any],
    *,
    examples: int = 1024,
    test: int = 300,
    effect: float = 0.0,
    tokens: int = 24,
    title: str = "A confident, correct review",
) -> Path:
    """Write data and runs of a finished study; ``effect`` is how much accuracy each larger batch size loses, about."""
    rng = np.random.default_rng(7)
    _write_json(folder / "data/audit.json", AUDIT)
    _write_json(folder / "data/reviews.json", reviews(report_spec, title))
    for model in report_spec["models"]:
        _write_json(folder / f"certificates/{model}.json", CERTIFICATE)
    done = set()
    for cell in report_spec["cells"]:
        if cell["run"] in done:
            continue
        done.add(cell["run"])
        run = folder / "runs" / cell["run"]
        rank = names_in_order(report_spec, "batch").index(cell["batch"])
        noise = report_spec["noise_scale"] != "off"
        _write_training(run, cell, rng, examples, report_spec["budget"]["epochs"], noise)
        _write_predictions(run, rng, test, 0.85 - effect * rank)
        _write_attention(run, report_spec, rng, tokens, title)
    return folder


def _lengths(count: int) -> dict[str, float]:
    return {"minimum": count // 3, "median": float(count), "mean": float(count), "maximum": 4 * count}


_SPLITS = {"train": 1024, "validation": 300, "test": 300}
_TRUNCATION = {"truncated": 30, "truncated_share": 0.1, "padding": 900, "padding_share": 0.03}
AUDIT: dict[str, Any] = {
    "reviews": 1624,
    "classes": ["negative", "positive"],
    "splits": {
        name: {"reviews": n, "per_class": {"negative": n // 2, "positive": n - n // 2}, "words": _lengths(120)}
        for name, n in _SPLITS.items()
    },
    "tokens": {
        model: {
            "max_length": 96,
            "vocabulary_size": 1000,
            "splits": {name: {"length": _lengths(120)} | _TRUNCATION for name in _SPLITS},
        }
        for model in ("modernbert", "bert")
    },
    "duplicates": {
        "groups": 3,
        "redundant": 3,
        "conflicting_groups": 1,
        "conflicting_reviews": 2,
        "within_origin": {"train": 3},
        "within_split": dict.fromkeys(_SPLITS, 1),
        "crossing": [
            {"split": one, "other": two, "reviews": 2, "share": 2 / _SPLITS[one]}
            for one in _SPLITS
            for two in _SPLITS
            if one != two
        ],
    },
}


def certified(difference: float, ratios: tuple[float, float, float], logged: float | None) -> dict[str, Any]:
    """A certificate's measures of the three windows."""
    return {
        name: {"largest_difference": difference, "relative_l2": difference, "norm_ratio": ratio, "cosine": 1.0}
        | {"logged_loss": logged, "true_loss": 0.7}
        for name, ratio in zip(("full", "tail", "ragged"), ratios, strict=True)
    }


CERTIFICATE: dict[str, Any] = {
    "passed": True,
    "verdict": "Certified: as fabricated.",
    "device": "cpu",
    "micro_batch": 8,
    "accumulation_steps": 4,
    "windows": {"full": [8, 8, 8, 8], "tail": [8, 8, 8], "ragged": [8, 8, 8, 4]},
    "engines": [
        {"engine": engine, "precision": "float64", "windows": certified(2e-16, (1.0, 1.0, 1.0), 0.7)}
        | {"passed": True, "verdict": "exact"}
        for engine in ("manual", "accelerate")
    ],
    "peers": [
        {"name": "Elsewhere", "version": "1.0", "windows": certified(3.0, (4.0, 3.0, 3.5), 2.8), "verdict": "4.00×"},
        {"name": "Nowhere", "reason": "not installed"},
    ],
}


def reviews(report_spec: dict[str, Any], title: str) -> dict[str, Any]:
    """``data/reviews.json`` with one review per name."""
    return {
        "rule": "Chosen by a bag-of-words classifier.",
        "baseline": {
            "name": "bag of words",
            "validation_correct": 240,
            "validation_examples": 300,
            "test_correct": 234,
            "test_examples": 300,
        },
        "reviews": [
            {"name": name, "title": title, "text": TEXT, "example_id": None, "label": 1}
            | {"baseline_probability": 0.97}
            for name in report_spec["review_names"]
        ],
    }


def _write_training(
    run: Path, cell: dict[str, Any], rng: np.random.Generator, examples: int, epochs: int, noise: bool
) -> None:
    lines: list[dict[str, Any]] = []
    update, samples, validations = 0, 0, []
    for epoch in range(1, epochs + 1):
        for start in range(0, examples, cell["batch"]):
            size = min(cell["batch"], examples - start)
            update, samples = update + 1, samples + size
            correct = int(rng.binomial(size, 0.9 - 0.4 * np.exp(-update / 40)))
            loss = float(0.2 + 0.5 * np.exp(-update / 40) + rng.normal(0, 0.3 / np.sqrt(size)))
            scores = {"loss": loss, "correct": correct, "examples": size, "accuracy": correct / size}
            place = {"kind": "update", "update": update, "epoch": epoch, "samples": samples}
            estimates = _noise(size, update, np.random.default_rng(samples)) if noise else {}
            lines.append(place | scores | {"lr": cell["learning_rate"], "grad_norm": 1.0} | estimates)
        validation = _scores(int(rng.binomial(300, 0.86)), 300, 0.35)
        validations.append(validation)
        place = {"kind": "epoch", "epoch": epoch, "update": update, "samples": samples}
        lines.append(place | {"train": _scores(int(examples * 0.8), examples, 0.4), "validation": validation})
    run.mkdir(parents=True)
    (run / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    best = max(range(epochs), key=lambda epoch: validations[epoch]["correct"])
    seconds = float(rng.uniform(10, 14))
    facts = {
        "best_epoch": best + 1,
        "best_validation": validations[best],
        "epochs": epochs,
        "updates": update,
        "samples": samples,
        "train_examples": examples,
        "seconds": seconds + 1,
        "training_seconds": seconds,
        "validation_seconds": 0.5,
        "samples_per_second": samples / seconds,
        "update_seconds_p50": 0.1,
        "update_seconds_p95": 0.2,
        "peak_memory_bytes": 400_000_000,
        "device": "cpu",
        "precision": "float32",
        "physical_batch_size": 16,
        "parameters": 1_234_567,
        "data_wait_seconds": 0.01,
        "gpu_utilisation_mean": None,
        "gpu_utilisation_peak": None,
        "energy_joules": None,
        "tail_windows": {"full": examples // cell["batch"], "tail": 0, "tail_examples": 0},
    }
    _write_json(run / "train.json", facts)
    versions = {"python": "3.11.7", "torch": "2.13.0"}
    git = {"revision": "a" * 40, "dirty": False}
    _write_json(run / "manifest.json", {"versions": versions, "platform": "Linux", "device": "cpu", "git": git})


def _noise(size: int, update: int, rng: np.random.Generator) -> dict[str, float | None]:
    """A noise scale around 100 that rises; null for the windows of one micro-batch of 16."""
    if size <= 16:
        return {"gradient_square": None, "noise_trace": None}
    square = float(rng.normal(1.0, 8 / np.sqrt(size)))
    return {"gradient_square": square, "noise_trace": float(rng.normal(100 + update, 20))}


def _write_predictions(run: Path, rng: np.random.Generator, count: int, accuracy: float) -> None:
    rows, metrics = [], {}
    for number, split in enumerate(("validation", "test")):
        metrics[split] = {}
        labels = np.arange(count) % 2
        difficulty = np.random.default_rng(number).normal(size=count)
        for checkpoint in ("best", "last"):
            margin = 3 * (accuracy - 0.5) + 1.2 * difficulty + rng.normal(0, 0.5, count)
            logits = np.zeros((count, 2), dtype=np.float32)
            logits[np.arange(count), labels] = margin
            metrics[split][checkpoint] = measure(logits, labels)
            ids = rng.permutation(count) if checkpoint == "best" else np.arange(count)
            columns = {"example_id": ids + 1000 * number, "split": [split] * count, "checkpoint": [checkpoint] * count}
            scores = {"label": labels[ids], "logit_0": logits[ids, 0], "logit_1": logits[ids, 1]}
            rows.append(pa.table(columns | scores))
    pq.write_table(pa.concat_tables(rows), run / "predictions.parquet")
    _write_json(run / "metrics.json", metrics)


def _write_attention(run: Path, spec: dict[str, Any], rng: np.random.Generator, n: int, title: str) -> None:
    windows = [None, 4, 4, None, 4] if run.parts[-4] == "modernbert" else [None, None]
    tokens = ["[CLS]", *(WORDS[i % len(WORDS)] for i in range(n - 2)), "[SEP]"]
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    arrays, measures = {}, []
    for facts in reviews(spec, title)["reviews"]:
        layers = np.exp(rng.normal(size=(len(windows), n, n)) * 0.6 + 4 * (np.arange(n) % 13 == 0) - distance / 9)
        for layer, window in enumerate(windows):
            layers[layer][distance > (n if window is None else window)] = 0
        arrays[facts["name"]] = (layers / layers.sum(2, keepdims=True)).astype(np.float16)
        measured = {"entropy": 0.5, "largest_weight": 0.3, "special_share": 0.2, "diagonal_share": 0.1}
        described = [{"layer": layer, "window": window} | measured for layer, window in enumerate(windows)]
        said = {"tokens": tokens, "prediction": 1, "probability": 0.972, "layers": described}
        measures.append({key: facts[key] for key in ("name", "title", "text", "label")} | said)
    (run / "attention").mkdir()
    np.savez_compressed(run / "attention/attention.npz", **arrays)
    _write_json(run / "attention/measures.json", {"classes": ["negative", "positive"], "reviews": measures})


def _scores(correct: int, examples: int, loss: float) -> dict[str, Any]:
    return {"correct": correct, "examples": examples, "accuracy": correct / examples, "loss": loss}


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
