"""What became of every job of a study, from its files alone: records, logs, and the files of running processes.

Nothing is asked of a process, and nothing is locked or written: whoever watches may sit at another machine. Each look
reads only what has changed since the last one.
"""

import math
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

from batchscope.files import read_json
from batchscope.provenance.fingerprint import without_places
from batchscope.provenance.jobs import JobFile
from batchscope.provenance.layout import FINGERPRINTS, Layout
from batchscope.provenance.stages import STAGES, read_record, subject_of, verb_of
from batchscope.provenance.studies import jobs_in, newest_job_file, wanted_jobs
from batchscope.watch.pulse import BEAT_SECONDS, FIRST_RANK, machine, started_ticks
from batchscope.watch.records import JobProcess, Phase, Progress
from batchscope.watch.tree import Stamp, Tree

State = Literal["done", "running", "waiting", "stopped", "killed", "silent", "failed", "to do"]
ENDED_BADLY: tuple[State, ...] = ("failed", "killed", "silent", "stopped")
SILENT_SECONDS = 90.0
"""Without a beat of a process on another machine: a network file system may show a file a minute late."""
CONFIRMING_SECONDS = 2 * BEAT_SECONDS + 1
"""For which an old file must stay the same before its process counts as silent, because clocks differ."""
STARTING_SECONDS = 30.0
"""After its start a job may have a log and not yet a file of its process."""
TAIL_BYTES = 8192


class Job(NamedTuple):
    """A job that is neither done nor still to do."""

    name: str
    state: State
    process: JobProcess | None
    """As it last wrote of itself; None where it never did."""
    seconds: float
    """Since it last wrote."""

    @property
    def progress(self) -> Progress | None:
        """How far a training is."""
        return self.process.get("progress") if self.process else None


class Look(NamedTuple):
    """A study at one moment."""

    jobs: JobFile
    states: dict[str, State]
    """Every job of the study → its state."""
    active: dict[str, Job]
    """The jobs that are neither done nor still to do."""
    doubtful: bool
    """Whether a process on another machine may have died: another look after ``CONFIRMING_SECONDS`` will tell."""
    since_last_end: float
    """Seconds since a job last succeeded; infinite where none did."""


class Watcher:
    """Follows a study. ``clock`` gives the time in seconds since 1970, ``timer`` seconds that never go back."""

    def __init__(
        self, layout: Layout, clock: Callable[[], float] = time.time, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self.layout, self.clock, self.timer = layout, clock, timer
        self._records, self._logs = Tree(layout.study / FINGERPRINTS), Tree(layout.study / "logs")
        self._job_file = Path()
        self._started = 0.0
        self._jobs: JobFile
        self._wanted: list[str] = []
        self._expected: dict[int, dict[str, object]] = {}
        self._recorded: set[str] = set()
        self._done: set[str] = set()
        self._logged: set[str] = set()
        self._last_end = -math.inf
        self._ends: dict[str, tuple[int, int, bool]] = {}
        self._beats: dict[str, tuple[int, float]] = {}

    def look(self) -> Look:
        """The states now. Raises UserError where the study's job file is missing or damaged."""
        self._read_jobs()
        self._note(self._records.changes())
        for path, stamp in self._logs.changes().items():
            (self._logged.discard if stamp is None else self._logged.add)(path.removesuffix(".log"))
        active, doubtful = self._processes()
        for name in self._logged - self._done - active.keys():
            if name in self._jobs.jobs and (job := self._without_process(name)):
                active[name] = job
        wanted = dict.fromkeys([*self._wanted, *active])
        states: dict[str, State] = {name: "done" if name in self._done else "to do" for name in wanted}
        states |= {name: job.state for name, job in active.items()}
        return Look(self._jobs, states, active, doubtful, self.clock() - self._last_end)

    # ------------------------------------------------------------------------------------------------ what is done

    def _read_jobs(self) -> None:
        """Read the job file, if the workflow was started with another one since."""
        path = newest_job_file(self.layout)
        self._started = path.stat().st_mtime
        if path == self._job_file:
            return
        self._job_file, self._jobs = path, jobs_in(self.layout, path)
        self._wanted, self._expected = wanted_jobs(self._jobs), {}
        self._done = {name for name in self._recorded if self._is_done(name)}

    def _note(self, changes: Mapping[str, Stamp | None]) -> None:
        """Take note of new, other and deleted records."""
        for path, stamp in changes.items():
            self._last_end = max(self._last_end, stamp.modified / 1e9 if stamp else -math.inf)
            name = path.removesuffix(".json")
            (self._recorded.discard if stamp is None else self._recorded.add)(name)
            (self._done.add if stamp is not None and self._is_done(name) else self._done.discard)(name)

    def _is_done(self, name: str) -> bool:
        """Whether the job's files are there and were made of what the job file says."""
        if name not in self._jobs.jobs:
            return False
        record = read_record(self.layout.record(name))
        if record is None or record["code"] != self._jobs.code(name):
            return False
        position = self._jobs.jobs[name]
        if position not in self._expected:
            self._expected[position] = without_places(self._jobs.specs[position])
        output = self.layout.study / STAGES[verb_of(name)].output.format(subject_of(name))
        return record["spec"] == self._expected[position] and output.exists()

    # ---------------------------------------------------------------------------------------------- what is going on

    def _processes(self) -> tuple[dict[str, Job], bool]:
        """The jobs whose process has left a file, and whether one of them may have died unseen."""
        root, doubtful = self.layout.processes, False
        active: dict[str, Job] = {}
        files = sorted(path for path in root.rglob("*.json") if not path.name.startswith("."))
        names = {path.relative_to(root).as_posix().removesuffix(".json"): path for path in files}
        for name, path in names.items():
            if name not in self._jobs.jobs:
                continue
            try:
                with path.open(encoding="utf-8") as file:  # opening makes a network file system ask its server
                    status = os.fstat(file.fileno())
                process = read_process(path)
                if (first := names.get(name + FIRST_RANK)) and "progress" in (of_rank := read_process(first)):
                    process["progress"] = of_rank["progress"]
                seconds = max(0.0, self.clock() - status.st_mtime)
                state, in_doubt = self._state(name, process, status.st_uid, seconds)
            except (OSError, ValueError, KeyError, TypeError):  # deleted, or damaged by a full disk: the log will tell
                continue
            if state in ENDED_BADLY and Path(process["job_file"]).name != self._job_file.name:
                continue  # of an earlier config or code: it is to be done
            doubtful |= in_doubt
            active[name] = Job(name, state, process, seconds)
        return active, doubtful

    def _state(self, name: str, process: JobProcess, owner: int, seconds: float) -> tuple[State, bool]:
        """State of a process by its own file, and whether that is in doubt."""
        if process["phase"] in ("failed", "stopped"):
            return cast(State, process["phase"]), False
        alive: State = "waiting" if process["phase"] == "waiting" else "running"
        if process["machine"] and process["machine"] == machine() and owner == os.getuid():
            return (alive if started_ticks(process["pid"]) == process["started_ticks"] else "killed"), False
        identity = f"{name} {process['host']} {process['pid']} {process['started']}"
        beat, since = self._beats.get(identity, (-1, 0.0))
        if beat != process["beat"]:
            beat, since = process["beat"], self.timer()
            self._beats[identity] = beat, since
        unchanged = self.timer() - since
        if unchanged > SILENT_SECONDS or (seconds > SILENT_SECONDS and unchanged >= CONFIRMING_SECONDS):
            return "silent", False
        return alive, seconds > SILENT_SECONDS

    def _without_process(self, name: str) -> Job | None:
        """A job that has a log, and neither a process nor finished files; None where it is merely to be done again."""
        try:
            status = self.layout.log(name).stat()
        except FileNotFoundError:
            return None
        if status.st_mtime < self._started:  # of an earlier start of the workflow
            return None
        stamp = status.st_mtime_ns, status.st_size
        if self._ends.get(name, (0, 0, False))[:2] != stamp:
            self._ends[name] = *stamp, ends_well(self.layout.log(name))
        if self._ends[name][2]:
            return None
        seconds = max(0.0, self.clock() - status.st_mtime)
        return Job(name, "running" if seconds < STARTING_SECONDS else "failed", None, seconds)


def read_process(path: Path) -> JobProcess:
    """What a process wrote of itself, without a progress that is not whole.

    Raises OSError where there is no such file, ValueError where it is not such a file.
    """
    process = read_json(path)
    if not isinstance(process, dict) or process.get("phase") not in get_args(Phase):
        raise ValueError(f"{path} says nothing of a process")
    texts = [process.get("host"), process.get("machine"), process.get("job_file")]
    texts += [process[name] for name in ("message", "slurm_job") if name in process]
    numbers = [process.get(name) for name in ("pid", "started_ticks", "started", "beat")]
    if not all(isinstance(text, str) for text in texts) or not all(map(_is_number, numbers)):
        raise ValueError(f"{path} says not all of a process")
    if "progress" in process and not _is_whole(process["progress"]):
        del process["progress"]
    return cast(JobProcess, process)


def _is_whole(progress: object) -> bool:
    """Whether parsed JSON is ``Progress``."""
    if not isinstance(progress, dict):
        return False
    numbers = [progress.get(name) for name in ("update", "epoch", "samples", "loss", "accuracy", "idle_seconds")]
    if (pace := progress.get("samples_per_second")) is not None:
        numbers.append(pace)
    if "validation" in progress:
        scores = progress["validation"]
        numbers += [scores.get(name) for name in ("loss", "accuracy")] if isinstance(scores, dict) else [None]
    return all(map(_is_number, numbers))


def _is_number(value: object) -> bool:
    """Whether parsed JSON is a number that a duration or a count can be; NaN and infinity are none."""
    return isinstance(value, int | float) and -1e15 < value < 1e15


def ends_well(log: Path) -> bool:
    """Whether a job's log ends as that of a job that succeeded."""
    lines = last_lines(log, 1)
    return bool(lines and re.search(r"batchscope \w+: done in [\d.]+ s \(start-up", lines[-1]))


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log that are not empty, as they are; none where it cannot be read."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-count:]
