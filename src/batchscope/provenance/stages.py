"""The stages of the workflow, and the record that each job leaves of what its files were made of.

Snakemake keeps what it knows of a job in ``.snakemake/``, which stays behind when results are moved or the repository
is cloned anew. Each job therefore also writes ``fingerprints/{job}.json`` in the study's folder: the spec and the code
its files were made of. The Snakefile compares these with the config's, `batchscope plan` tells the difference.
"""

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, cast

from batchscope.files import is_text_by_name, read_json, write_json
from batchscope.provenance.code import describe_code
from batchscope.provenance.fingerprint import canonical_json, digest, file_hash
from batchscope.provenance.layout import Layout
from batchscope.provenance.records import JobRecord


class Stage(NamedTuple):
    """One verb of the workflow."""

    module: str
    """Where its code begins."""
    output: str
    """One of its files below the study's folder; braces stand for the model or the run."""


STAGES = {
    "corpus": Stage("batchscope.data.corpus", "data/corpus.parquet"),
    "split": Stage("batchscope.data.split", "data/split.parquet"),
    "tokenize": Stage("batchscope.data.tokenize", "tokens/{}/train.arrow"),
    "audit": Stage("batchscope.data.audit", "data/audit.json"),
    "reviews": Stage("batchscope.data.reviews", "data/reviews.json"),
    "train": Stage("batchscope.training.loop", "runs/{}/train.json"),
    "branch": Stage("batchscope.training.branch", "runs/{}/branches.json"),
    "certify": Stage("batchscope.certificate.certify", "certificates/{}.json"),
    "evaluate": Stage("batchscope.evaluation.evaluate", "runs/{}/metrics.json"),
    "track": Stage("batchscope.tracking", "runs/{}/tracking.json"),
    "attention": Stage("batchscope.insight.attention", "runs/{}/attention/measures.json"),
    "maps": Stage("batchscope.report.maps", "runs/{}/attention/maps"),
    "attention_measures": Stage("batchscope.insight.attention_measures", "runs/{}/attention/heads.json"),
    "divergence": Stage("batchscope.insight.divergence", "tables/divergence.csv"),
    "calibration": Stage("batchscope.insight.calibration", "tables/calibration.csv"),
    "errors": Stage("batchscope.insight.errors", "tables/errors.csv"),
    "geometry_measures": Stage("batchscope.insight.geometry_measures", "runs/{}/geometry.json"),
    "geometry": Stage("batchscope.insight.geometry", "tables/geometry.csv"),
    "cartography_measures": Stage("batchscope.insight.cartography_measures", "runs/{}/cartography.parquet"),
    "cartography": Stage("batchscope.insight.cartography", "tables/cartography.csv"),
    "features": Stage("batchscope.insight.features", "runs/{}/features.parquet"),
    "embedding": Stage("batchscope.insight.embedding", "tables/embedding.csv"),
    "tables": Stage("batchscope.report.tables", "tables/summary.csv"),
    "figures": Stage("batchscope.report.figures", "figures/accuracy.png"),
    "report": Stage("batchscope.report.page", "report/index.html"),
}

RUNS_A_MODEL = (
    *("train", "branch", "certify", "evaluate", "attention", "attention_measures", "divergence", "features"),
    *("geometry_measures", "geometry", "cartography_measures"),
)
"""The verbs that lease a device and get the study's threads."""
TOKENS = {split: f"tokens/{{}}/{split}.arrow" for split in ("train", "validation", "test")}
HISTORY, MANIFEST = "runs/{}/history.jsonl", "runs/{}/manifest.json"
FACTS = (HISTORY, "runs/{}/train.json", MANIFEST)
BEST, LAST = (f"runs/{{}}/checkpoints/{name}.safetensors" for name in ("best", "last"))
WRITES: dict[str, tuple[str, ...]] = {
    "corpus": ("data/corpus.parquet",),
    "split": ("data/split.parquet",),
    "tokenize": (*TOKENS.values(), "tokens/{}/tokenizer/*"),
    "audit": ("data/audit.json",),
    "reviews": ("data/reviews.json",),
    "train": (*FACTS, BEST, LAST),
    "branch": ("runs/{}/branches.json",),
    "certify": ("certificates/{}.json",),
    "evaluate": ("runs/{}/predictions.parquet", "runs/{}/metrics.json"),
    "attention": ("runs/{}/attention/attention.npz", "runs/{}/attention/measures.json"),
    "attention_measures": ("runs/{}/attention/heads.json",),
    "calibration": ("tables/calibration.csv", "tables/reliability.csv"),
    "divergence": (
        *("tables/attention_heads.csv", "tables/ablation.csv"),
        *(f"tables/divergence{name}.csv" for name in ("", "_layers", "_ratio")),
    ),
    "geometry_measures": ("runs/{}/geometry.json",),
    "geometry": tuple(f"tables/geometry{name}.csv" for name in ("", "_correlations", "_pairs", "_paths", "_ratio")),
    "cartography_measures": ("runs/{}/cartography.parquet",),
    "cartography": tuple(f"tables/cartography{name}.csv" for name in ("", "_regions", "_pairs", "_ratio")),
    "errors": tuple(
        f"tables/{name}.csv"
        for name in (
            *("errors", "hardest", "error_counts", "error_groups", "flips", "margins", "hardest_runs"),
            "label_review",
        )
    ),
    "features": ("runs/{}/features.parquet",),
    "embedding": ("tables/embedding.csv", "tables/embedding_quality.csv"),
    "tables": ("tables/*",),
    "figures": ("figures/*",),
}
"""Verb → its files that later stages read, as patterns; a file that a verb names belongs to no pattern of another."""
READS: dict[str, tuple[str, ...]] = {
    "split": WRITES["corpus"],
    "tokenize": (*WRITES["corpus"], *WRITES["split"]),
    "audit": (*WRITES["corpus"], *WRITES["split"], *TOKENS.values()),
    "reviews": (*WRITES["corpus"], *WRITES["split"]),
    "train": (TOKENS["train"], TOKENS["validation"]),
    "branch": (TOKENS["train"], TOKENS["validation"], *FACTS),
    "certify": (TOKENS["train"],),
    "evaluate": (TOKENS["validation"], TOKENS["test"], BEST, LAST),
    "track": (*FACTS, "runs/{}/metrics.json"),
    "attention": ("tokens/{}/tokenizer/*", TOKENS["validation"], BEST, *WRITES["reviews"]),
    "maps": WRITES["attention"],
    "attention_measures": ("tokens/{}/tokenizer/*", TOKENS["test"], BEST),
    "divergence": (*WRITES["attention_measures"], MANIFEST, BEST, TOKENS["test"]),
    "geometry_measures": (TOKENS["train"], BEST, LAST),
    "geometry": (*(*WRITES["geometry_measures"], BEST, HISTORY, "runs/{}/metrics.json", TOKENS["train"]),),
    "cartography_measures": (TOKENS["train"], HISTORY, MANIFEST),
    "cartography": (*WRITES["cartography_measures"], "runs/{}/metrics.json"),
    "calibration": ("runs/{}/predictions.parquet",),
    "errors": ("runs/{}/predictions.parquet", TOKENS["test"], "tokens/{}/tokenizer/*", *WRITES["corpus"]),
    "features": (TOKENS["test"], BEST),
    "embedding": (*WRITES["features"], "runs/{}/predictions.parquet", "tables/errors.csv"),
    "tables": (
        *(*FACTS, *WRITES["evaluate"], "runs/{}/attention/measures.json", *WRITES["branch"]),
        *(*WRITES["audit"], *WRITES["reviews"], *WRITES["certify"]),
    ),
    "figures": (
        *(*WRITES["tables"], *WRITES["calibration"], *WRITES["attention"], *WRITES["geometry"]),
        *(*WRITES["divergence"], *WRITES["errors"], *WRITES["embedding"], *WRITES["cartography"]),
    ),
    "report": (
        *(*WRITES["tables"], *WRITES["calibration"], *WRITES["figures"], *WRITES["geometry"]),
        *(*WRITES["divergence"], "runs/{}/attention/attention.npz", *WRITES["errors"], *WRITES["embedding"]),
        *(*WRITES["reviews"], *WRITES["audit"], *WRITES["certify"], *WRITES["cartography"]),
    ),
}
"""Verb → what it reads of ``WRITES``: the inputs of its rule."""


def example(verb: str) -> str:
    """A job of the verb, for messages."""
    if "{}" not in STAGES[verb].output:
        return verb
    return f"{verb}/bert/bs64/constant/seed1" if STAGES[verb].output.startswith("runs/") else f"{verb}/bert"


def write_record(layout: Layout, job: str, identity: str, code: str) -> None:
    """Write what a job's files were made of; and once per version of the code its description, beside the records.

    ``identity`` is ``Spec.identity`` of the job's spec.
    """
    description = layout.code_record(code)
    if not description.exists():
        write_json(description, describe_code(STAGES[verb_of(job)].module))
    hashes = {path.relative_to(layout.study).as_posix(): file_hash(path) for path in written_files(layout, job)}
    record: JobRecord = {"spec": json.loads(identity), "code": code, "files": hashes}
    write_json(layout.record(job), record)


def written_files(layout: Layout, job: str) -> list[Path]:
    """The job's files on disk that later stages read."""
    verb, subject = verb_of(job), subject_of(job)
    of_others = {name for other, names in WRITES.items() if other != verb for name in names if "*" not in name}
    found = (path for name in WRITES.get(verb, ()) for path in layout.study.glob(name.format(subject)))
    return sorted(
        path
        for path in found
        if path.is_file() and path.name[0] != "." and path.relative_to(layout.study).as_posix() not in of_others
    )


def belongs_to(file: str, pattern: str, subject: str) -> bool:
    """Whether a file below the study's folder is one that a pattern of ``READS`` means for this model or run."""
    return fnmatchcase(file, pattern.format(subject))


def read_record(path: Path) -> JobRecord | None:
    """A job's record, None where there is no readable one."""
    try:
        record = read_json(path)
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or not is_text_by_name(record.get("files", {})):
        return None
    whole = isinstance(record.get("spec"), dict) and isinstance(record.get("code"), str)
    return cast(JobRecord, record) if whole else None


def fingerprint_of(record: JobRecord) -> str:
    """``Spec.fingerprint`` of the spec that a record holds."""
    return digest(canonical_json(record["spec"]))


def stale_jobs(layout: Layout, specs: Mapping[str, str], codes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(job, one of its files) of every job whose files exist and were made of another spec or other code.

    ``specs`` maps a job to the fingerprint of its spec, ``codes`` a verb to the hash of its code.
    """
    for job, spec in specs.items():
        record = read_record(layout.record(job))
        if record and not _is_of(record, spec, codes[verb_of(job)]):
            output = layout.study / STAGES[verb_of(job)].output.format(subject_of(job))
            if output.exists():
                yield job, str(output)


def is_current(layout: Layout, job: str, spec: str, code: str) -> bool:
    """Whether a job's files were made of this spec, by its fingerprint, and of this code."""
    record = read_record(layout.record(job))
    return record is not None and _is_of(record, spec, code)


def _is_of(record: JobRecord, spec: str, code: str) -> bool:
    return record["code"] == code and fingerprint_of(record) == spec


def verb_of(job: str) -> str:
    """``train`` of ``train/bert/bs64/constant/seed1``."""
    return job.partition("/")[0]


def subject_of(job: str) -> str:
    """The model or the run that a job is for: ``bert/bs64/constant/seed1``; empty for a job of the whole study."""
    return job.partition("/")[2]


def model_of(job: str) -> str:
    """The model that a job is for: ``bert``."""
    return subject_of(job).partition("/")[0]
