"""What lies in ``results/`` that no run needs: `batchscope clean` lists it and deletes it.

Needed is what a job of a job file in use may still read: the states of a training that is not finished, what a training
left for later stages, the descriptions of the code that records name. A job file is in use if it is the newest of its
study or was written or read by the workflow in the last days. Whatever was changed in these days stays, and so do the
states of a training that runs. Finished runs are not looked at: other studies may take their files.
"""

import logging
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import NamedTuple

from batchscope.errors import UserError
from batchscope.locks import UNSUPPORTED, take
from batchscope.provenance.fingerprint import file_hash
from batchscope.provenance.jobs import JobFile, job_files, read_job_file
from batchscope.provenance.layout import FINGERPRINTS, Layout, training_of
from batchscope.provenance.manifests import run_fingerprint
from batchscope.provenance.reuse import MANIFEST, stored_manifest
from batchscope.provenance.stages import model_of, read_record, subject_of, verb_of
from batchscope.training.spec import TrainSpec

log = logging.getLogger(__name__)
TEMPORARY = re.compile(r"\.\d+\..+")
"""Names that ``files.atomic`` gives to what it has not finished."""


class Leftover(NamedTuple):
    """A file or folder that no run needs."""

    path: Path
    bytes: int
    why: str


class Trainings(NamedTuple):
    """The trainings of a study's job files in use, by fingerprint."""

    unfinished: set[str]
    branched: set[str]


def leftovers(results: Path, days: float) -> list[Leftover]:
    """All that no run of any study below ``results`` needs and nobody has changed for ``days`` days.

    Raises UserError where there is no such folder.
    """
    if not results.is_dir():
        raise UserError(f"there is no folder {results}: give the one that holds your studies, such as results")
    limit = time.time() - days * 86_400
    found: list[Leftover] = []
    for study in sorted(folder for folder in results.iterdir() if folder.is_dir() and folder.name[0] != "."):
        found += _of_study(Layout(study), limit)
    return [one for one in found if newest_change(one.path) <= limit]


def remove(found: Iterable[Leftover], locks: Path) -> int:
    """Delete what was found, but no state of a training that runs; the bytes that this freed."""
    freed = 0
    for one in found:
        with ExitStack() as held:
            if _is_in_use(one.path, locks, held):
                log.info(f"{one.path}: its training is running; it stays")
                continue
            if one.path.is_dir():
                shutil.rmtree(one.path, ignore_errors=True)
            else:
                one.path.unlink(missing_ok=True)
            freed += one.bytes if not one.path.exists() else 0
    return freed


def in_words(found: list[Leftover]) -> str:
    """A line for each, the largest first, and the sum."""
    if not found:
        return "Nothing to remove: a run may need everything that is there."
    lines = [f"{size_in_words(one.bytes):>10}  {one.path}: {one.why}" for one in sorted(found, key=_largest_first)]
    total = size_in_words(sum(one.bytes for one in found))
    return "\n".join([*lines, f"{total:>10}  in all"])


def size_in_words(size: int) -> str:
    """``12 KiB``, ``1.5 MiB``, ``3.2 GiB``."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1024:.0f} KiB"


def newest_change(path: Path) -> float:
    """When a file, or anything in a folder, was last written, in seconds since 1970; the future where it is gone."""
    try:
        inner = [file.lstat().st_mtime for file in path.rglob("*")] if path.is_dir() else []
        return max([path.lstat().st_mtime, *inner])
    except FileNotFoundError:
        return float("inf")


# ------------------------------------------------------------------------------------------------------ one study


def _of_study(layout: Layout, limit: float) -> Iterator[Leftover]:
    files = job_files(layout)
    in_use = [path for path in files if path == files[-1] or path.stat().st_mtime > limit]
    for path in files:
        if path not in in_use:
            yield _leftover(path, "the jobs of an earlier config or version of the code")
    if jobs := _read(in_use):
        yield from _states(layout, jobs)
    yield from _codes(layout)
    for path in sorted(layout.study.rglob(".*")):
        of_a_training = path.is_relative_to(layout.state) and not path.is_relative_to(layout.processes)
        if TEMPORARY.fullmatch(path.name) and not of_a_training:
            yield _leftover(path, "half-written by a process that was killed")


def _read(paths: list[Path]) -> list[JobFile]:
    """The job files; none at all if one of them cannot be read, because then nobody knows what its runs need."""
    try:
        return [read_job_file(path) for path in paths]
    except UserError as error:
        log.warning(f"{error}. The states beside it are left alone")
        return []


def _states(layout: Layout, jobs: list[JobFile]) -> Iterator[Leftover]:
    """States of no unfinished training, kept states of no branched one, results ready for no job."""
    trainings = _trainings(layout, jobs)
    if trainings is not None:
        for folder in _folders(layout.state, ("branches", layout.ready.name, layout.processes.name)):
            if training_of(folder) not in trainings.unfinished:
                yield _leftover(folder, "states of a training that is finished or that no config asks for")
        for folder in _folders(layout.state / "branches"):
            if training_of(folder) not in trainings.branched:
                yield _leftover(folder, "states kept for branches that no config asks for")
    names = {job for one in jobs for job in one.jobs}
    for made_of in sorted(layout.ready.rglob("made_of.json")):
        if made_of.parent.relative_to(layout.ready).as_posix() not in names:
            yield _leftover(made_of.parent, "computed ahead for a job that no config asks for")


def _trainings(layout: Layout, jobs: list[JobFile]) -> Trainings | None:
    """The trainings of some job files; None where tokens are missing, without which no fingerprint is known."""
    found, finished = Trainings(set(), set()), set[str]()  # equal runs are one, in the folder of one of them
    hash_of = cache(file_hash)
    for one in jobs:
        for job in one.jobs:
            if verb_of(job) != "train":
                continue
            spec = one.spec(job, TrainSpec)
            try:
                fingerprint = run_fingerprint(spec, one.code(job), layout.tokens(model_of(job)), hash_of)
            except OSError:
                return None
            manifest = stored_manifest(layout.run(subject_of(job)) / MANIFEST)
            if manifest is not None and manifest["fingerprint"] == fingerprint:
                finished.add(fingerprint)
            found.unfinished.add(fingerprint)
            if f"branch/{subject_of(job)}" in one.jobs:
                found.branched.add(fingerprint)
    return found._replace(unfinished=found.unfinished - finished)


def _codes(layout: Layout) -> Iterator[Leftover]:
    """Descriptions of code that no record names."""
    folder = layout.study / FINGERPRINTS
    records = [read_record(path) for path in folder.rglob("*.json") if path.parent.name != "code"]
    named = {record["code"] for record in records if record}
    for path in sorted((folder / "code").glob("*.json")):
        if path.stem not in named:
            yield _leftover(path, "describes code that no file was made with")


def _folders(parent: Path, others: tuple[str, ...] = ()) -> list[Path]:
    found = parent.iterdir() if parent.is_dir() else iter(())
    return sorted(folder for folder in found if folder.is_dir() and folder.name not in others)


def _leftover(path: Path, why: str) -> Leftover:
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return Leftover(path, sum(file.lstat().st_size for file in files), why)


def _is_in_use(path: Path, locks: Path, held: ExitStack) -> bool:
    """Whether a process trains with the states at ``path``; otherwise none can begin until ``held`` is closed."""
    if path.parent.name != "state":
        return False
    lock = locks / f"{path.name.partition('-')[0]}.lock"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        if not take(lock, held):
            return True
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return True
    held.callback(lock.unlink, missing_ok=True)
    return False


def _largest_first(one: Leftover) -> tuple[int, str]:
    return -one.bytes, os.fspath(one.path)
