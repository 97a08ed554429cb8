"""What the workflow would run now, and why: `batchscope plan`.

Which jobs run is Snakemake's answer, asked in a dry run with a logger of its own (``workflow/logger``). Why is the
difference between the spec and the code that the job file has for each job and those in the record of its files.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

from batchscope.config.study import Study
from batchscope.config.text import read_mapping
from batchscope.errors import UserError
from batchscope.provenance.code import PACKAGE, describe_code, read_description
from batchscope.provenance.jobs import JOB_FILES, JobFile, read_job_file
from batchscope.provenance.records import CodeDescription
from batchscope.provenance.stages import STAGES, read_record, verb_of

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
    resumes: int | None = None
    """Update after which a training that was interrupted goes on; None where none was."""
    note: str | None = None
    """What else is to be known before it runs, in a sentence."""
    seconds: float | None = None
    """Predicted duration; None where there is no earlier measurement."""
    threads: int = 1
    gpus: int = 0
    priority: int = 0
    """As the rules ask for; the highest of ready jobs starts first."""
    needs: list[str] = field(default_factory=list)
    """Jobs of the plan that make its inputs."""


class Machine(NamedTuple):
    """What Snakemake may use at once."""

    cores: int
    gpus: int


class Outlook(NamedTuple):
    """What a plan says of all its jobs together."""

    notes: list[str]
    """What is to be known before they run, a sentence each."""
    wall_seconds: float | None
    """Until the last one ends; None where the machine is not known, as on a cluster."""
    machine: Machine | None


def machine_of(snakemake_arguments: Sequence[str]) -> Machine | None:
    """Cores and GPUs of a command line: all cores and one GPU by default. None for another profile or an executor."""
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("--cores", "-c", "--jobs", "-j", dest="cores", nargs="?", default="all")
    options.add_argument("--resources", nargs="*", default=[])
    for other in ("--workflow-profile", "--profile", "--executor", "-e"):
        options.add_argument(other, dest="elsewhere")
    found, _ = options.parse_known_args(list(snakemake_arguments))
    if found.elsewhere:
        return None
    gpus = dict(pair.split("=", 1) for pair in found.resources if "=" in pair).get("gpu", "1")
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(int(found.cores) if str(found.cores).isdigit() else own, int(gpus) if gpus.isdigit() else 1)


def planned_jobs(
    configfiles: Sequence[Path], snakemake_arguments: Sequence[str] = ()
) -> tuple[list[PlannedJob], JobFile]:
    """Every job that Snakemake would run in this folder with these configs, and why; and the job file they would read.

    Raises UserError for a mistake in the config, and if Snakemake refuses.
    """
    _refuse_mistakes(configfiles, snakemake_arguments)
    events, jobs = dry_run(configfiles, snakemake_arguments)
    makers = {path: _name(event) for event in events for path in _paths(event["output"])}
    return [_planned(event, makers, jobs) for event in events if event["log"]], jobs


def _refuse_mistakes(configfiles: Sequence[Path], snakemake_arguments: Sequence[str]) -> None:
    """Raises UserError for a config that is not worth the start of Snakemake, which shows a traceback for some.

    Several files, or values of the command line, are put together by Snakemake.
    """
    if len(configfiles) == 1 and not any(argument.startswith(("--config", "-C")) for argument in snakemake_arguments):
        Study.from_yaml(configfiles[0])
        return
    for file in configfiles:
        read_mapping(file, f"the config {file}")


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
        machine = machine_of(snakemake_arguments)
        command += ["--cores", machine.cores] if machine else []
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
            raise UserError(_refusal(done.stdout))
        events = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
        return events, read_job_file(next(Path(folder).glob("*.json")))


def _refusal(output: str) -> str:
    """Why Snakemake stopped: Batchscope's own message where there is one, else all that Snakemake said."""
    _, own, message = f"\n{output}".partition("\nbatchscope: ")
    return message.partition('\n  File "')[0].strip() if own else f"snakemake refuses:\n{output.strip()}"


def _planned(event: dict[str, Any], makers: dict[str, str], jobs: JobFile) -> PlannedJob:
    job = PlannedJob(event["rule_name"], event["wildcards"], _name(event))
    job.threads, job.gpus, job.priority = event["threads"], int(event["gpus"]), int(event["priority"])
    job.needs = list(dict.fromkeys(makers[path] for path in _paths(event["input"]) if path in makers))
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
    old = read_description(description)
    if old is None:
        yield {"kind": "code", "module": module, "name": None, "change": "changed"}
        return
    yield from code_changes(old, describe_code(module))


def code_changes(old: CodeDescription, new: CodeDescription) -> Iterator[Cause]:
    """The definitions, templates and libraries that differ between two codes."""
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
