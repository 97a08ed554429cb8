"""The stages of the workflow, and the record that each job leaves of what its files were made of.

Snakemake keeps what it knows of a job in ``.snakemake/``, which stays behind when results are moved or the repository
is cloned anew. Each job therefore also writes ``fingerprints/{job}.json`` in the study's folder: the spec and the code
its files were made of. The Snakefile compares these with the config's, `batchscope plan` tells the difference.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from batchscope.files import read_json, write_json
from batchscope.provenance.fingerprint import PLACES, canonical_json, describe_code, without_places

FOLDER = "fingerprints"


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
    "certify": Stage("batchscope.certificate.certify", "certificates/{}.json"),
    "evaluate": Stage("batchscope.evaluation.evaluate", "runs/{}/metrics.json"),
    "track": Stage("batchscope.tracking", "runs/{}/tracking.json"),
    "attention": Stage("batchscope.insight.attention", "runs/{}/attention/measures.json"),
    "maps": Stage("batchscope.report.maps", "runs/{}/attention/maps"),
    "tables": Stage("batchscope.report.tables", "tables/summary.csv"),
    "figures": Stage("batchscope.report.figures", "figures/accuracy.png"),
    "report": Stage("batchscope.report.page", "report/index.html"),
}


def with_places(spec: dict[str, Any], settings: dict[str, Any]) -> None:
    """Put the paths back that a job needs and its spec leaves out: ``settings`` has them."""
    target = spec.get("model", spec)
    target |= {key: settings[key] for key in PLACES if key in settings}


def write_record(path: Path, verb: str, spec: dict[str, Any], code: str) -> None:
    """Write what a job's files were made of; and once per version of the code its description, beside the records."""
    folder = next(parent for parent in path.parents if parent.name == FOLDER)
    description = folder / "code" / f"{code}.json"
    if not description.exists():
        write_json(description, describe_code(STAGES[verb].module))
    write_json(path, {"spec": without_places(spec), "code": code})


def read_record(path: Path) -> dict[str, Any] | None:
    """``spec`` and ``code`` of a job's record, None where there is no readable one."""
    try:
        record = read_json(path)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and {"spec", "code"} <= record.keys() else None


def strangers(study_folder: Path, specs: dict[str, str], codes: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(job, one of its files) of every job whose files exist and were made of another spec or other code.

    ``codes`` maps a verb to the hash of its code.
    """
    for job, spec in specs.items():
        verb, _, subject = job.partition("/")
        record = read_record(study_folder / FOLDER / f"{job}.json")
        if record and (record["code"] != codes[verb] or canonical_json(record["spec"]) != spec):
            output = study_folder / STAGES[verb].output.format(subject)
            if output.exists():
                yield job, str(output)
