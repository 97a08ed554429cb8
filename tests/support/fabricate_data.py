"""The files of data and certificates of a fabricated study, as plain values."""

from typing import Any

from batchscope.report.spec import ReportSpec

TEXT = "the film was a quiet triumph , though its $ ending felt borrowed and slow ."
BINARY = ("negative", "positive")


def _lengths(count: int) -> dict[str, float]:
    return {"minimum": count // 3, "median": float(count), "mean": float(count), "maximum": 4 * count}


_TRUNCATION = {"truncated": 30, "truncated_share": 0.1, "padding": 900, "padding_share": 0.03}


def shared_out(count: int, shares: tuple[float, ...]) -> list[int]:
    """``count`` examples over the classes in these shares; the last class takes the rest."""
    parts = [int(share * count) for share in shares[:-1]]
    return [*parts, count - sum(parts)]


def audit(
    models: list[str],
    classes: tuple[str, ...] = BINARY,
    shares: tuple[float, ...] = (0.5, 0.5),
    crossing: int = 2,
    left_out: tuple[tuple[str, str], ...] = (),
    held_out: int = 300,
) -> dict[str, Any]:
    """``data/audit.json``: ``crossing`` reviews of every split also appear in each other split."""
    splits = {"train": 1024, "validation": held_out, "test": held_out}
    return {
        "reviews": sum(splits.values()),
        "classes": list(classes),
        "source": {
            "read": [{"name": "synthetic", "origin": "train", "reviews": sum(splits.values())}],
            "left_out": [{"name": name, "reason": reason} for name, reason in left_out],
        },
        "splits": {
            name: {
                "reviews": n,
                "per_class": dict(zip(classes, shared_out(n, shares), strict=True)),
                "words": _lengths(120),
            }
            for name, n in splits.items()
        },
        "tokens": {
            model: {
                "max_length": 96,
                "vocabulary_size": 1000,
                "splits": {name: {"length": _lengths(120)} | _TRUNCATION for name in splits},
            }
            for model in models
        },
        "duplicates": {
            "groups": 3,
            "redundant": 3,
            "conflicting_groups": 1,
            "conflicting_reviews": 2,
            "within_origin": {"train": 3},
            "within_split": dict.fromkeys(splits, 1),
            "crossing": [
                {"split": one, "other": two, "reviews": crossing, "share": crossing / splits[one]}
                for one in splits
                for two in splits
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
    "model": {"architecture": "bert"},
    "parameters": 1_234_567,
    "loading": None,
    "attention": None,
    "seed": 1,
    "device": "cpu",
    "device_kind": "cpu",
    "versions": {"torch": "2.13.0", "transformers": "5.23.0", "accelerate": "1.15.0"},
    "precision": "float32",
    "tolerances": {"float64": 1e-10, "float32": 1e-4, "bfloat16": 2e-2},
    "micro_batch": 8,
    "accumulation_steps": 4,
    "windows": {"full": [8, 8, 8, 8], "tail": [8, 8, 8], "ragged": [8, 8, 8, 4]},
    "engines": [
        {"engine": engine, "precision": "float64", "windows": certified(2e-16, (1.0, 1.0, 1.0), 0.7)}
        | {"passed": True, "verdict": "exact"}
        for engine in ("manual", "accelerate")
    ],
    "not_measured": {},
    "peers": [
        {"name": "Elsewhere", "distribution": "elsewhere", "version": "1.0", "passed": False, "verdict": "4.00×"}
        | {"windows": certified(3.0, (4.0, 3.0, 3.5), 2.8)},
        {"name": "Nowhere", "distribution": "nowhere", "reason": "not installed"},
    ],
    "seconds": 3.5,
}


def reviews(report_spec: ReportSpec, title: str) -> dict[str, Any]:
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
            for name in report_spec.review_names
        ],
    }
