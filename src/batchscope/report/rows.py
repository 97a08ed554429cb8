"""Tables that restate the files of other stages, one row per thing that they hold."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from batchscope.certificate.records import Certificate, WindowMeasures
from batchscope.data.records import Baseline
from batchscope.evaluation.records import ComputedWith, Metrics
from batchscope.insight.records import AttentionMeasures
from batchscope.provenance.records import RunManifest
from batchscope.report.spec import GridCell

Row = dict[str, object]
LABELS = ("run", "model", "target_batch_size", "lr_policy", "budget", "seed")
CLASS_COLUMNS = (*LABELS, "split", "checkpoint", "class", "examples", "predicted", "correct") + (
    "recall",
    "precision",
    "f1",
)
CONFUSION_COLUMNS = (*LABELS, "split", "checkpoint", "label", "prediction", "examples")
ATTENTION_COLUMNS = (*LABELS, "review", "prediction", "probability", "layer", "window") + (
    "entropy",
    "largest_weight",
    "special_share",
    "diagonal_share",
    "reason",
)
CERTIFICATE_COLUMNS = (
    "model",
    "method",
    "version",
    "precision",
    "window",
    "largest_difference",
    "relative_l2",
    "norm_ratio",
    "cosine",
) + ("logged_loss", "true_loss", "bitwise_equal", "verdict")


def labels_of(cell: GridCell) -> Row:
    """The columns ``LABELS`` of a run, under the name of the first cell that reads it."""
    return dict(zip(LABELS, (cell.run, cell.model, cell.batch, cell.policy, cell.budget, cell.seed), strict=True))


def class_rows(cell: GridCell, metrics: Metrics, classes: Sequence[str]) -> tuple[list[Row], list[Row]]:
    """Per split, checkpoint and class its counts and scores; and per pair of classes a cell of the confusion matrix."""
    per_class: list[Row] = []
    cells: list[Row] = []
    for split, both in (("validation", metrics["validation"]), ("test", metrics["test"])):
        for checkpoint, measures in (("best", both["best"]), ("last", both["last"])):
            place = labels_of(cell) | {"split": split, "checkpoint": checkpoint}
            counts = measures["confusion"]
            for number, name in enumerate(classes):
                examples, predicted = sum(counts[number]), sum(row[number] for row in counts)
                correct = counts[number][number]
                per_class.append(
                    place
                    | {"class": name, "examples": examples, "predicted": predicted, "correct": correct}
                    | {"recall": _share(correct, examples), "precision": _share(correct, predicted)}
                    | {"f1": _share(2 * correct, examples + predicted)}
                )
                cells += [
                    place | {"label": name, "prediction": other, "examples": counts[number][column]}
                    for column, other in enumerate(classes)
                ]
    return per_class, cells


def attention_rows(cell: GridCell, measures: AttentionMeasures) -> list[Row]:
    """One row per review and layer, layers counted from 1; one row with the reason for an encoder without attention."""
    if "reason" in measures:
        return [labels_of(cell) | {"reason": measures["reason"]}]
    return [
        labels_of(cell)
        | {"review": review["name"], "prediction": measures["classes"][review["prediction"]]}
        | {"probability": review["probability"]}
        | {**layer, "layer": layer["layer"] + 1}
        for review in measures["reviews"]
        for layer in review["layers"]
    ]


def certificate_rows(model: str, certificate: Certificate) -> list[Row]:
    """One row per method, precision and window; one row with the reason for a peer that was not measured."""
    rows: list[Row] = []
    for engine in certificate["engines"]:
        labels: Row = {"model": model, "method": f"batchscope, {engine['engine']}", "precision": engine["precision"]}
        rows += _windows(labels | {"verdict": engine["verdict"]}, engine["windows"])
    for peer in certificate["peers"]:
        labels = {"model": model, "method": peer["name"], "version": peer.get("version"), "precision": "float64"}
        verdict: Row = {"verdict": peer.get("verdict", peer.get("reason"))}
        rows += _windows(labels | verdict, peer["windows"]) if "windows" in peer else [labels | verdict]
    return rows


def _windows(labels: Row, windows: Mapping[str, WindowMeasures]) -> list[Row]:
    return [labels | {"window": name} | dict(measures) for name, measures in windows.items()]


def provenance_row(cell: GridCell, manifest: RunManifest, predicted: ComputedWith) -> Row:
    """What a run was made of and where, and what its predictions were computed with."""
    git = manifest["git"]
    return (
        labels_of(cell)
        | {
            name: manifest[name]
            for name in ("fingerprint", "code", "device", "device_type", "precision", "determinism")
        }
        | {"physical_batch_size": manifest["physical_batch_size"], "ranks": manifest["ranks"]}
        | {"prediction_device": predicted["device"], "prediction_precision": predicted["precision"]}
        | {"driver": manifest["driver"], "platform": manifest["platform"]}
        | {"git_revision": git["revision"] if git else None, "git_dirty": git["dirty"] if git else None}
        | {"reused_from": manifest["reused_from"]}
        | {f"version_{library}": version for library, version in manifest["versions"].items()}
    )


def baseline_rows(baseline: Baseline) -> list[Row]:
    """The bag of words on validation and test."""
    return [
        {"name": baseline["name"], "split": split, "correct": correct, "examples": examples}
        | {"accuracy": correct / examples}
        for split, correct, examples in (
            ("validation", baseline["validation_correct"], baseline["validation_examples"]),
            ("test", baseline["test_correct"], baseline["test_examples"]),
        )
    ]


def frame(rows: Iterable[Row], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The rows as a table; with ``columns``, these in this order, also where there are no rows."""
    return pd.DataFrame(list(rows), columns=None if columns is None else list(columns))


def _share(count: int, total: int) -> float | None:
    return count / total if total else None
