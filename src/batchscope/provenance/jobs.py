"""The job file: the spec and the settings of every job of a study, for one state of its config and code.

The workflow writes it before the first job and names it on each job's command line. Its name is the hash of its
content, so a dry run or another config writes another file and never changes what running jobs read.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from batchscope.errors import UserError
from batchscope.files import write_text
from batchscope.provenance.fingerprint import canonical_json, digest, without_places
from batchscope.provenance.layout import RESULTS, Layout
from batchscope.provenance.spec import Spec
from batchscope.provenance.stages import subject_of, verb_of
from batchscope.training.spec import TrainSettings

JOB_FILES = "BATCHSCOPE_JOB_FILES"
"""Environment variable: the folder of job files, where it is not the study's own."""
NAME = re.compile("[0-9a-f]{16}")
"""Of a job file, without its ending: ``digest`` of its content."""
S = TypeVar("S", bound=Spec)


@dataclass(frozen=True)
class JobFile:
    """Every job of a study."""

    study: str
    codes: Mapping[str, str]
    """Verb → hash of its code."""
    settings: TrainSettings
    """What jobs may use but no result depends on."""
    specs: list[dict[str, object]]
    """The distinct specs, as ``Spec.plain`` gives them."""
    jobs: Mapping[str, int]
    """Job, such as ``train/bert/bs64/constant/seed1`` → position of its spec."""
    folder: Path | None = None
    """The study's folder, where it is not ``results/{study}`` of the working directory."""

    @property
    def layout(self) -> Layout:
        """Where the study's files are."""
        return Layout(self.folder or RESULTS / self.study)

    def plain(self, job: str) -> dict[str, object]:
        """The spec of a job as parsed JSON. Raises UserError where the study has no such job."""
        if job not in self.jobs:
            raise UserError(f"the study {self.study} has no job {job}")
        return self.specs[self.jobs[job]]

    def spec(self, job: str, kind: type[S]) -> S:
        """The spec of a job. Raises UserError where the study has no such job."""
        return kind.read(self.plain(job))

    def identity(self, job: str) -> str:
        """``Spec.identity`` of a job's spec."""
        return canonical_json(without_places(self.plain(job)))

    def subjects(self, verb: str) -> list[str]:
        """The models or runs that a verb has jobs for, sorted."""
        return sorted(subject_of(job) for job in self.jobs if verb_of(job) == verb)

    def code(self, job: str) -> str:
        """Hash of the code of a job's stage, as the workflow saw it."""
        return self.codes[verb_of(job)]


def fingerprints(specs: Mapping[str, Spec]) -> dict[str, str]:
    """Job → ``Spec.fingerprint``; that of a spec which many jobs share is computed once."""
    distinct, positions = _distinct(specs)
    known = [spec.fingerprint() for spec in distinct]
    return {job: known[position] for job, position in positions.items()}


def _distinct(specs: Mapping[str, Spec]) -> tuple[list[Spec], dict[str, int]]:
    """The distinct objects among the specs, and job → position of its spec among them."""
    positions: dict[int, int] = {}
    distinct: list[Spec] = []
    for spec in specs.values():
        if id(spec) not in positions:
            positions[id(spec)] = len(distinct)
            distinct.append(spec)
    return distinct, {job: positions[id(spec)] for job, spec in specs.items()}


def write_job_file(
    folder: Path, study: str, specs: Mapping[str, Spec], codes: Mapping[str, str], settings: TrainSettings
) -> Path:
    """Write the job file into ``folder``, or renew the time of the same one that is there already; its path.

    So the newest job file is that of the last start.
    """
    distinct, jobs = _distinct(specs)
    text = canonical_json(
        {
            "study": study,
            "codes": dict(codes),
            "settings": settings.plain(),
            "specs": [spec.plain() for spec in distinct],
            "jobs": jobs,
        }
    )
    path = folder / f"{digest(text)}.json"
    if path.exists():
        with suppress(OSError):  # it may be another user's
            path.touch()
    else:
        write_text(path, text + "\n")
    return path


def read_job_file(path: Path) -> JobFile:
    """Read a job file. Raises UserError where it is missing, damaged (its name is its hash) or of another version."""
    try:
        text = path.read_text(encoding="utf-8")
        if digest(text[:-1]) != path.stem:  # the last one ends the line
            raise ValueError("its content is not the one that its name says")
        content = json.loads(text)
        settings = TrainSettings.read(content.pop("settings"))
        return JobFile(settings=settings, **content)
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        raise UserError(f"cannot read the job file {path}: start the workflow again, which writes it") from None


def job_files(layout: Layout) -> list[Path]:
    """The job files of a study, the newest last; what people or file systems put beside them is none."""
    times: dict[Path, int] = {}
    for path in layout.job_files.glob("*.json"):
        with suppress(OSError):  # deleted meanwhile, or a link that leads nowhere
            if NAME.fullmatch(path.stem):
                times[path] = path.stat().st_mtime_ns
    return sorted(times, key=lambda path: (times[path], path.name))
