"""What differs between two studies besides their results: config, code, libraries and devices."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from batchscope.compare.sides import Side
from batchscope.provenance.code import read_description
from batchscope.provenance.plan import code_changes, differences
from batchscope.provenance.plan_view import in_words
from batchscope.provenance.stages import STAGES, read_record, verb_of
from batchscope.report.spec import ReportSpec

SECTIONS = ("data", "models", "budgets", "optimizer", "schedule", "validate_every", "select_from", "engines") + (
    "tail",
    "determinism",
    "noise_scale",
    "branches",
    "calibration",
    "claims",
)
"""Keys of the report's spec that say how a study is made."""
SETTINGS = ("physical_batch_size", "device", "gpus")
FACTS = ("device", "precision", "determinism", "driver", "ranks", "physical_batch_size", "platform", "git_revision") + (
    "prediction_device",
    "prediction_precision",
)
"""Columns of the provenance, besides the versions of libraries."""
MOST_CHANGES = 6


class Difference(NamedTuple):
    """What differs, and how it is in each study."""

    what: str
    first: str
    second: str


def config_differences(first: Side, second: Side) -> list[Difference]:
    """Every key whose value differs, by its dotted name."""
    found = []
    for cause in differences(_protocol(first), _protocol(second)):
        if "added" in cause:
            found.append(Difference(cause["field"], f"{cause['removed']} more", f"{cause['added']} more"))
        else:
            found.append(Difference(cause["field"], in_json(cause["old"]), in_json(cause["new"])))
    return found


def _protocol(side: Side) -> dict[str, object]:
    """How a study is made, as plain values."""
    plain, spec = side.jobs.plain("report"), side.jobs.spec("report", ReportSpec)
    rates: dict[str, dict[str, list[float]]] = {}
    for cell in spec.cells:
        by_batch = rates.setdefault(cell.candidate_of or cell.policy, {})
        known = by_batch.setdefault(str(cell.batch), [])
        if cell.learning_rate not in known:
            known.append(cell.learning_rate)
    trainings = [side.jobs.plain(job) for job in side.jobs.jobs if verb_of(job) == "train"]
    settings = side.jobs.settings.plain()
    return {
        **{key: plain[key] for key in SECTIONS if key in plain},
        **{key: settings[key] for key in SETTINGS},
        "target_batch_sizes": spec.batch_sizes,
        "seeds": spec.seeds,
        "lr_policies": rates,
        "precision": sorted({str(training["precision"]) for training in trainings}),
        "corpus": side.jobs.plain("corpus"),
        "split": side.jobs.plain("split"),
    }


def in_json(value: object) -> str:
    """A value as JSON, so that 1 and "1" differ; ``unset`` for None."""
    return "unset" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)


def code_differences(first: Side, second: Side) -> list[Difference]:
    """Every stage of both whose code differs: the hashes, and which definitions and libraries differ."""
    found = []
    for verb in STAGES:
        codes = [_code(side, verb) for side in (first, second)]
        if codes[0] != codes[1] and None not in codes:
            changes = "; ".join(_changes(first, second, str(codes[0]), str(codes[1])))
            found.append(Difference(verb, str(codes[0]), f"{codes[1]}{f' ({changes})' if changes else ''}"))
    return found


def _code(side: Side, verb: str) -> str | None:
    """Hash of the code that made a stage's files, else of that which the workflow saw; None without the stage."""
    jobs = sorted(job for job in side.jobs.jobs if verb_of(job) == verb)
    record = next((record for job in jobs if (record := read_record(side.layout.record(job)))), None)
    return record["code"] if record else side.jobs.codes[verb] if jobs else None


def _changes(first: Side, second: Side, old: str, new: str) -> Iterator[str]:
    """The first few differences between two codes; nothing where one of them is not described."""
    before, after = read_description(first.layout.code_record(old)), read_description(second.layout.code_record(new))
    if before is None or after is None:
        return
    changes = list(code_changes(before, after))
    yield from map(in_words, changes[:MOST_CHANGES])
    if len(changes) > MOST_CHANGES:
        yield f"{len(changes) - MOST_CHANGES} more"


def environment_differences(first: Side, second: Side) -> list[Difference]:
    """Every library, device and precision in which the runs of the two studies differ."""
    versions = [name for side in (first, second) for name in side.provenance.columns if name.startswith("version_")]
    found = []
    for column in dict.fromkeys([*FACTS, *versions]):
        values = [_values(side, column) for side in (first, second)]
        if values[0].keys() != values[1].keys():
            name = column.removeprefix("version_").replace("_", " ")
            found.append(Difference(name, *(_in_words(one) for one in values)))
    return found


def _values(side: Side, column: str) -> dict[str, int]:
    """Value → number of runs."""
    if column not in side.provenance:
        return {"": len(side.provenance)}
    counts: Mapping[str, int] = side.provenance[column].value_counts(sort=False).to_dict()
    return dict(sorted(counts.items()))


def _in_words(values: Mapping[str, int]) -> str:
    """``2.13.0``; of several values each with its runs."""
    if len(values) == 1:
        return next(iter(values)) or "–"
    parts: Sequence[str] = [f"{value or '–'} ({count:,})" for value, count in values.items()]
    return ", ".join(parts)
