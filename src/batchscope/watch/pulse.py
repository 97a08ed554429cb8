"""A sign of life: the small file that the process of a job writes while it runs, for ``batchscope watch``.

Whoever watches may sit at another machine and sees nothing but shared files. A thread writes the file every few
seconds; the training itself never waits for it, and a file that cannot be written is one warning.
"""

import json
import logging
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from batchscope.errors import UserError
from batchscope.training.records import EpochLine, HistoryLine, UpdateLine, ValidationLine
from batchscope.training.stop import EXIT_STATUS, Stopped
from batchscope.watch.records import JobProcess, Phase, Progress

log = logging.getLogger(__name__)
BEAT_SECONDS = 5.0
FIRST_MINUTE_SECONDS = 1.0
"""Between two beats of the first minute: a short job is seen, too."""
LONGEST_MESSAGE = 2000
FIRST_RANK = ".rank0"
"""Behind the name of a job: the file of the first of several ranks."""


class Meter:
    """How far a training is, from the lines of its history."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, UpdateLine] | None = None
        self._validation: EpochLine | ValidationLine | None = None

    def observe(self, line: HistoryLine) -> None:
        """Take note of a line as it is written."""
        if line["kind"] != "update":
            self._validation = line
            return
        now = time.monotonic()
        self._first = self._first or (now, line["samples"])
        self._last = now, line

    def reading(self) -> Progress | None:
        """The progress now; None before the first update."""
        if self._first is None or self._last is None:
            return None
        (first, samples), (last, line) = self._first, self._last
        progress: Progress = {
            "update": line["update"],
            "epoch": line["epoch"],
            "samples": line["samples"],
            "loss": line["loss"],
            "accuracy": line["accuracy"],
            "samples_per_second": (line["samples"] - samples) / (last - first) if last > first else None,
            "idle_seconds": time.monotonic() - last,
        }
        if self._validation is not None:
            progress["validation"] = self._validation["validation"]
        return progress


class Pulse:
    """Writes ``path`` while its context lasts, and nothing outside of it. The file stays after an error."""

    def __init__(self, path: Path, job_file: Path, started: float) -> None:
        self._path, self._meter = path, Meter()
        self._record: JobProcess = {
            "host": socket.gethostname(),
            "machine": machine(),
            "pid": os.getpid(),
            "started_ticks": started_ticks(os.getpid()) or 0,
            "started": started,
            "job_file": job_file.as_posix(),
            "phase": "waiting",
            "beat": 0,
        }
        if slurm_job := os.environ.get("SLURM_JOB_ID"):
            self._record["slurm_job"] = slurm_job
        self._ended, self._writing = threading.Event(), threading.Lock()
        self._on = self._warned = False
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def phase(self, phase: Phase) -> None:
        """Say what the process does from now on."""
        self._record["phase"] = phase
        if self._on:
            self._write()

    def observe(self, line: HistoryLine) -> None:
        """Take note of a line of a training's history; the next beat tells it."""
        self._meter.observe(line)

    def __enter__(self) -> Self:
        self._on = True
        self._write()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended.set()
        if error is None:
            with self._writing, suppress(OSError):  # a job that succeeded has succeeded
                self._path.unlink()
            return
        stopped = isinstance(error, Stopped | KeyboardInterrupt)
        stopped |= isinstance(error, SystemExit) and error.code == EXIT_STATUS
        self._record["message"] = _message(error)
        self._record["phase"] = "stopped" if stopped else "failed"
        self._write(last=True)

    def _beat(self) -> None:
        began = time.monotonic()
        while not self._ended.wait(FIRST_MINUTE_SECONDS if time.monotonic() - began < 60 else BEAT_SECONDS):
            self._write()

    def _write(self, last: bool = False) -> None:
        """Write the file under another name and rename it; unlike a result it need not outlive a power cut."""
        with self._writing:
            if self._ended.is_set() and not last:
                return
            self._record["beat"] += 1
            if progress := self._meter.reading():
                self._record["progress"] = progress
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                temporary = self._path.with_name(f".{os.getpid()}.{self._path.name}")
                temporary.write_text(json.dumps(self._record), encoding="utf-8")
                temporary.replace(self._path)
            except OSError as error:
                if not self._warned:
                    log.warning(f"{self._path}: {error.strerror}. `batchscope watch` will not see how this job goes on")
                self._warned = True


def _message(error: BaseException) -> str:
    """An error in words: those that are meant for the user as they are, others with their type."""
    text = str(error)
    if not isinstance(error, Stopped | UserError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]} …"


def machine() -> str:
    """The boot of this machine and the namespace of its process numbers; empty where there is no ``/proc``."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def started_ticks(pid: int) -> int | None:
    """When a living process of this machine started, in the kernel's ticks; None where there is none."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] in "ZX" else int(after_name[19])
