"""Does a job read what earlier jobs wrote? The records name the hash of every file that a later stage reads.

A Parquet file, a CSV table or a JSON file does not show a changed byte by itself: it gives another number. So each job
compares the files that it reads with the records before it starts. Files without a record, such as those of an
earlier version, are read as they are.
"""

from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase

from batchscope.files import DamagedFileError
from batchscope.provenance.fingerprint import file_hash
from batchscope.provenance.jobs import JobFile
from batchscope.provenance.layout import Layout
from batchscope.provenance.stages import READS, STAGES, WRITES, belongs_to, model_of, read_record, subject_of, verb_of


def check_inputs(jobs: JobFile, job: str) -> None:
    """Raise DamagedFileError for the first file that ``job`` reads and that is not as the job that made it left it.

    A missing file is not looked for: the stage says so itself, where it needs it.
    """
    for file, expected, writer in recorded_inputs(jobs, job):
        _check(jobs.layout, file, expected, writer)


def check_written(layout: Layout, job: str, wanted: Collection[str]) -> None:
    """Raise DamagedFileError for the first file of ``job`` that is not as it left it.

    ``wanted`` are patterns of files below the study's folder. Without a record nothing is known, and nothing is said.
    """
    record = read_record(layout.record(job))
    for file, expected in record.get("files", {}).items() if record else ():
        if any(fnmatchcase(file, pattern) for pattern in wanted):
            _check(layout, file, expected, job)


def _check(layout: Layout, file: str, expected: str, writer: str) -> None:
    path = layout.study / file
    if path.is_file() and file_hash(path) != expected:
        raise DamagedFileError(path, ValueError(f"it is not as the job {writer} wrote it"))


def recorded_inputs(jobs: JobFile, job: str) -> Iterator[tuple[str, str, str]]:
    """File below the study's folder, recorded hash, and the job that made it, of all that ``job`` reads."""
    patterns = READS.get(verb_of(job), ())
    for verb, written in WRITES.items():
        wanted = [pattern for pattern in written if pattern in patterns]
        for subject in _subjects(jobs, job, verb) if wanted else ():
            writer = f"{verb}/{subject}".rstrip("/")
            record = read_record(jobs.layout.record(writer))
            for file, expected in record.get("files", {}).items() if record else ():
                if any(belongs_to(file, pattern, subject) for pattern in wanted):
                    yield file, expected, writer


def _subjects(jobs: JobFile, job: str, verb: str) -> list[str]:
    """The models or runs whose ``verb`` wrote what ``job`` reads; of a job of the whole study, all of its runs."""
    output = STAGES[verb].output
    if "{}" not in output:
        return [""]
    if not output.startswith("runs/"):
        return [model_of(job)] if subject_of(job) else jobs.subjects("tokenize")
    if subject_of(job):
        return [subject_of(job)]
    cells = jobs.plain(job)["cells"]
    assert isinstance(cells, list)
    return list(dict.fromkeys(cell["run"] for cell in cells))
