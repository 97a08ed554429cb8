"""A plan as a table for a terminal, and as JSON for machines."""

import json
from dataclasses import asdict
from typing import Any

from batchscope.errors import counted
from batchscope.provenance.plan import Cause, Outlook, PlannedJob
from batchscope.provenance.stages import STAGES, subject_of, verb_of


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


def as_json(jobs: list[PlannedJob], outlook: Outlook) -> str:
    """The plan for machines: ``jobs`` with the fields of PlannedJob, ``seconds`` in all, ``unmeasured`` jobs;
    and those of Outlook.
    """
    told = [asdict(job) for job in jobs]
    seconds, unknown = total_seconds(jobs)
    machine = outlook.machine._asdict() if outlook.machine else None
    plan = {"jobs": told, "seconds": seconds, "unmeasured": unknown, **outlook._asdict(), "machine": machine}
    return json.dumps(plan, indent=2, ensure_ascii=False)


def total_seconds(jobs: list[PlannedJob]) -> tuple[float, int]:
    """Sum of what is predicted, and for how many jobs nothing is."""
    known = [job.seconds for job in jobs if job.seconds is not None]
    return sum(known), len(jobs) - len(known)


def as_table(jobs: list[PlannedJob], outlook: Outlook) -> str:
    """The plan for a terminal: a line per stage, then the jobs of the stage by cause; notes at the end."""
    if not jobs:
        return "\n".join(["Nothing to run: everything is up to date.", *outlook.notes])
    verbs = sorted({verb_of(job.name) for job in jobs}, key=_order)
    wide = max(12, *map(len, verbs))
    lines = [f"{'stage':<{wide}}{'jobs':>6}{'reused':>8}{'predicted':>13}"]
    for verb in verbs:
        stage = [job for job in jobs if verb_of(job.name) == verb]
        reused = sum(job.reuses is not None for job in stage)
        lines.append(f"{verb:<{wide}}{len(stage):>6}{reused or '':>8}{_predicted(stage):>13}")
        groups: dict[str, list[PlannedJob]] = {}
        for job in stage:
            words = [in_words(cause) for cause in job.causes[:6]]
            words += [f"{len(job.causes) - 6} more differences"] if len(job.causes) > 6 else []
            words += [f"taken from {job.reuses}"] if job.reuses else []
            words += [f"resumes after update {job.resumes:,}"] if job.resumes else []
            words += [job.note] if job.note else []
            groups.setdefault("; ".join(words), []).append(job)
        lines += [f"    {words}{_subjects(group)}" for words, group in groups.items()]
    seconds, unknown = total_seconds(jobs)
    lines.append(
        f"{counted(len(jobs), 'job')}; {_summary(seconds, unknown, len(jobs))}{_beside_each_other(jobs, outlook)}"
    )
    return "\n".join([*lines, *outlook.notes])


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


def _beside_each_other(jobs: list[PlannedJob], outlook: Outlook) -> str:
    """The wall time, where it is known and anything was measured."""
    if not outlook.wall_seconds or outlook.machine is None:
        return ""
    cores, gpus = outlook.machine
    with_gpus = f" and {counted(gpus, 'GPU')}" if any(job.gpus for job in jobs) else ""
    least = "at least " if any(job.seconds is None for job in jobs) else ""
    return f" With {counted(cores, 'core')}{with_gpus}: {least}{duration(outlook.wall_seconds)}."


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 20 s``, ``5 h 12 min``."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
