"""What the workflow would run now, and why: `batchscope plan`.

Which jobs run is Snakemake's answer, asked in a dry run with a logger of its own (``workflow/logger``). Why is the
difference between the spec and the code that the job file has for each job and those in the record of its files.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from batchscope.errors import UserError
from batchscope.files import read_json
from batchscope.provenance.code import PACKAGE, describe_code
from batchscope.provenance.jobs import JOB_FILES, JobFile, read_job_file
from batchscope.provenance.records import CodeDescription
from batchscope.provenance.stages import STAGES, read_record, subject_of, verb_of

REPOSITORY = PACKAGE.parents[1]
MISSING, UPDATED, UPSTREAM = "Missing output files", "Updated input files", "Input files updated by another job"


class Cause(TypedDict):
    """Why a job runs; ``in_words`` says it in a line."""

    kind: Literal["new", "missing", "input", "upstream", "spec", "code", "library", "snakemake"]
    files: NotRequired[list[str]]
    """``missing`` and ``input``: the files that are missing or changed."""
    jobs: NotRequired[list[str]]
    """``upstream``: the jobs that run before it."""
    field: NotRequired[str]
    """``spec`` and ``library``: what differs; a dotted path, or a library."""
    old: NotRequired[object]
    new: NotRequired[object]
    """``spec`` and ``library``: its values; None is unset."""
    added: NotRequired[int]
    removed: NotRequired[int]
    """``spec``: of a list of mappings, such as the cells of a grid, how many entries came and went."""
    module: NotRequired[str]
    name: NotRequired[str | None]
    """``code``: the definition that differs; None where that is not known."""
    change: NotRequired[str]
    """``code``: ``added``, ``changed`` or ``removed``."""
    reason: NotRequired[str]
    """``snakemake``: its own words."""


@dataclass
class PlannedJob:
    """A job that Snakemake would run."""

    rule: str
    wildcards: dict[str, str]
    name: str
    """Verb and subject: ``train/bert/bs64/constant/seed1``."""
    causes: list[Cause] = field(default_factory=list)
    reuses: str | None = None
    """Folder of finished work with the same fingerprint, whose files this job will take."""
    seconds: float | None = None
    """Predicted duration; None where there is no earlier measurement."""


def planned_jobs(
    configfiles: Sequence[Path], snakemake_arguments: Sequence[str] = ()
) -> tuple[list[PlannedJob], JobFile]:
    """Every job that Snakemake would run in this folder with these configs, and why; and the job file they would read.

    Raises UserError if Snakemake refuses.
    """
    events, jobs = dry_run(configfiles, snakemake_arguments)
    makers = {path: _name(event) for event in events for path in _paths(event["output"])}
    return [_planned(event, makers, jobs) for event in events if event["log"]], jobs


def dry_run(
    configfiles: Sequence[Path], snakemake_arguments: Sequence[str] = ()
) -> tuple[list[dict[str, Any]], JobFile]:
    """The jobs of `snakemake --dry-run` as its log events tell them, and the job file that it wrote."""
    if not (REPOSITORY / "Snakefile").is_file():
        raise UserError(f"plan needs the repository: there is no Snakefile in {REPOSITORY}")
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "jobs.jsonl"
        lines.touch()
        command = [sys.executable, "-m", "snakemake", "--snakefile", REPOSITORY / "Snakefile", "--dry-run"]
        command += ["--logger", "jobs", "--nocolor"]
        command += ["--configfile", *configfiles] if configfiles else []
        path = os.pathsep.join(filter(None, [str(REPOSITORY / "workflow/logger"), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [str(part) for part in [*command, *snakemake_arguments]],
            env=os.environ | {"BATCHSCOPE_JOB_LOG": str(lines), JOB_FILES: folder, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise UserError(f"snakemake refuses:\n{done.stdout.strip()}")
        events = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
        return events, read_job_file(next(Path(folder).glob("*.json")))


def _planned(event: dict[str, Any], makers: dict[str, str], jobs: JobFile) -> PlannedJob:
    job = PlannedJob(event["rule_name"], event["wildcards"], _name(event))
    record = read_record(jobs.layout.record(job.name))
    reasons = _reasons(event["reason"])
    if MISSING in reasons:
        job.causes.append({"kind": "missing", "files": reasons[MISSING]} if record else {"kind": "new"})
    if record:
        job.causes += differences(record["spec"], json.loads(jobs.identity(job.name)))
        if record["code"] != jobs.code(job.name):
            job.causes += list(changed_code(job.name, jobs.layout.code_record(record["code"])))
    if UPDATED in reasons:
        job.causes.append({"kind": "input", "files": reasons[UPDATED]})
    above = sorted({makers[path] for path in reasons.get(UPSTREAM, []) if path in makers})
    if above:
        job.causes.append({"kind": "upstream", "jobs": above})
    return job if job.causes else _otherwise(job, event["reason"])


def _otherwise(job: PlannedJob, reason: str) -> PlannedJob:
    """Snakemake's own words, where it knows a reason that the records do not."""
    job.causes.append({"kind": "snakemake", "reason": reason.partition(":")[0]})
    return job


def _name(event: dict[str, Any]) -> str:
    """``verb/subject``, from the path of the job's log."""
    if not event["log"]:
        return str(event["rule_name"])
    path = event["log"][0].removesuffix(".log")
    return str(path.split("/logs/", 1)[-1])


def _paths(formatted: Sequence[str]) -> list[str]:
    """Paths without the flags that Snakemake shows behind them, as in ``train.json (update)``."""
    return [re.sub(r" \([a-z_, ]+\)$", "", path) for path in formatted]


def _reasons(text: str) -> dict[str, list[str]]:
    """Snakemake's reasons → the files of each."""
    found = {}
    for part in text.split("; "):
        name, _, files = part.partition(": ")
        found[name] = _paths(files.split(", ")) if files else []
    return found


# -------------------------------------------------------------------------------------------------- differences


def differences(old: Any, new: Any, path: str = "") -> list[Cause]:
    """What differs between two specs: ``field`` (dotted path), ``old`` and ``new``; None is unset.

    A list of mappings, such as the cells of a grid, differs by how many entries came and went.
    """
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            difference
            for key in sorted(old.keys() | new.keys())
            for difference in differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        ]
    if isinstance(old, list) and isinstance(new, list) and any(isinstance(item, dict) for item in [*old, *new]):
        before, after = (Counter(json.dumps(item, sort_keys=True) for item in items) for items in (old, new))
        added, removed = (after - before).total(), (before - after).total()
        return [{"kind": "spec", "field": path, "added": added, "removed": removed}]
    return [{"kind": "spec", "field": path, "old": old, "new": new}]


def changed_code(job: str, description: Path) -> Iterator[Cause]:
    """The definitions, templates and libraries that differ between the code of a job's files and the code here."""
    module = STAGES[verb_of(job)].module
    try:
        old: CodeDescription = read_json(description)
    except (OSError, ValueError):
        yield {"kind": "code", "module": module, "name": None, "change": "changed"}
        return
    new = describe_code(module)
    for module in sorted(old["modules"].keys() | new["modules"].keys()):
        before, after = old["modules"].get(module, {}), new["modules"].get(module, {})
        for name, change in _changes(before, after):
            yield {"kind": "code", "module": module, "name": name, "change": change}
    for name, change in _changes(old["templates"], new["templates"]):
        yield {"kind": "code", "module": f"templates/{name}", "name": None, "change": change}
    for name, _ in _changes(old["libraries"], new["libraries"]):
        yield {"kind": "library", "field": name, "old": old["libraries"].get(name), "new": new["libraries"].get(name)}


def _changes(before: dict[str, str], after: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield name, "changed" if name in before and name in after else "added" if name in after else "removed"


# --------------------------------------------------------------------------------------------------- presentation


def in_words(cause: Cause) -> str:
    """A cause in one line."""
    match cause["kind"]:
        case "new":
            return "new"
        case "missing":
            return f"missing: {_files(cause['files'])}"
        case "input":
            return f"changed input: {_files(cause['files'])}"
        case "upstream":
            verbs = dict.fromkeys(map(verb_of, cause["jobs"]))
            return f"after {', '.join(verbs)}"
        case "spec" if "added" in cause:
            return f"{cause['field']}: {cause['added']} added, {cause['removed']} removed"
        case "spec" | "library":
            return f"{cause['field']}: {_value(cause['old'])} → {_value(cause['new'])}"
        case "code":
            where = cause["module"].removeprefix("batchscope.")
            return f"code {cause['change']}: {where}{'.' + cause['name'] if cause['name'] else ''}"
    return str(cause["reason"])


def _files(paths: list[str]) -> str:
    """The files without the folder of the study."""
    names = sorted(path.split("/", 2)[-1] for path in paths)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _value(value: Any) -> str:
    if value is None:
        return "unset"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}…"


def as_json(jobs: list[PlannedJob]) -> str:
    """The plan for machines: ``jobs`` with the fields of PlannedJob, ``seconds`` in all, ``unmeasured`` jobs."""
    told = [asdict(job) for job in jobs]
    seconds, unknown = total_seconds(jobs)
    return json.dumps({"jobs": told, "seconds": seconds, "unmeasured": unknown}, indent=2, ensure_ascii=False)


def total_seconds(jobs: list[PlannedJob]) -> tuple[float, int]:
    """Sum of what is predicted, and for how many jobs nothing is."""
    known = [job.seconds for job in jobs if job.seconds is not None]
    return sum(known), len(jobs) - len(known)


def as_table(jobs: list[PlannedJob]) -> str:
    """The plan for a terminal: a line per stage, then the jobs of the stage by cause."""
    if not jobs:
        return "Nothing to run: everything is up to date."
    lines = [f"{'stage':<12}{'jobs':>6}{'reused':>8}{'predicted':>13}"]
    for verb in sorted({verb_of(job.name) for job in jobs}, key=_order):
        stage = [job for job in jobs if verb_of(job.name) == verb]
        reused = sum(job.reuses is not None for job in stage)
        lines.append(f"{verb:<12}{len(stage):>6}{reused or '':>8}{_predicted(stage):>13}")
        groups: dict[str, list[PlannedJob]] = {}
        for job in stage:
            words = [in_words(cause) for cause in job.causes[:6]]
            words += [f"{len(job.causes) - 6} more differences"] if len(job.causes) > 6 else []
            words += [f"taken from {job.reuses}"] if job.reuses else []
            groups.setdefault("; ".join(words), []).append(job)
        lines += [f"    {words}{_subjects(group)}" for words, group in groups.items()]
    seconds, unknown = total_seconds(jobs)
    lines.append(f"{len(jobs)} job{'s' if len(jobs) > 1 else ''}; {_summary(seconds, unknown, len(jobs))}")
    return "\n".join(lines)


def _order(verb: str) -> int:
    return list(STAGES).index(verb) if verb in STAGES else len(STAGES)


def _subjects(group: list[PlannedJob]) -> str:
    names = sorted(subject_of(job.name) for job in group)
    if not names[0]:
        return ""
    return f"  [{', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}]"


def _predicted(jobs: list[PlannedJob]) -> str:
    seconds, unknown = total_seconds(jobs)
    if unknown == len(jobs):
        return "unknown"
    return f"{'> ' if unknown else ''}{duration(seconds)}"


def _summary(seconds: float, unknown: int, jobs: int) -> str:
    if unknown == jobs:
        return "no earlier job of these stages was measured, so nothing is predicted."
    rest = f"; of {unknown} of them there is no earlier measurement" if unknown else ""
    return f"{duration(seconds)} of work predicted from earlier jobs, one after the other{rest}."


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 20 s``, ``5 h 12 min``."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
