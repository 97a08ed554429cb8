"""When a training must stop before its end: at a signal, or shortly before its wall-time limit."""

import logging
import os
import signal
import subprocess
import threading
import time
from types import FrameType
from typing import Any, Self

log = logging.getLogger(__name__)
EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: not done, trying again will help
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """The training was asked to stop; the message says why. Whoever catches it saves the state."""


class StopRequest:
    """Watches for SIGTERM, SIGINT and the time ``deadline`` (seconds since 1970) while its context lasts.

    ``reserve`` is the number of seconds that stopping needs before the deadline: the work up to the next check, and
    saving a state. It begins at 30, or a quarter of the remaining time if that is less. The caller raises it when it
    knows how long saving takes.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.reserve = 30.0 if deadline is None else min(30.0, max(0.0, deadline - time.time()) / 4)
        self._signal: int | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._signal is not None:  # the second signal: do not wait for the micro-batch
            raise KeyboardInterrupt
        self._signal = number

    def reason(self) -> str | None:
        """Why to stop now, or None."""
        if self._signal is not None:
            return f"received {signal.Signals(self._signal).name}"
        if self.deadline is not None and time.time() + self.reserve >= self.deadline:
            left = self.deadline - time.time()
            return f"the wall-time limit is {left:.0f} s away, and saving may take {self.reserve:.0f} s"
        return None

    def check(self) -> None:
        """Raise Stopped if there is a reason to."""
        if (reason := self.reason()) is not None:
            raise Stopped(reason)


def deadline(limit_minutes: float | None, started: float) -> float | None:
    """When the job ends, in seconds since 1970: as SLURM says, else ``limit_minutes`` after ``started``, else never."""
    if (end := _end_of_slurm_job()) is not None:
        return end
    return None if limit_minutes is None else started + 60 * limit_minutes


def _end_of_slurm_job() -> float | None:
    """``SLURM_JOB_END_TIME``, else the controller's answer; None outside SLURM and without a limit.

    SLURM sets the variable from 23.02 on, and Snakemake's SLURM executor drops it on the way to the job step.
    """
    if end := os.environ.get("SLURM_JOB_END_TIME"):
        return float(end)
    if "SLURM_JOB_ID" not in os.environ:
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
    try:
        answer = subprocess.run(
            ["squeue", "--noheader", "--format=%e", f"--jobs={job}"],
            env=os.environ | {"SLURM_TIME_FORMAT": "%s"},
            stdout=subprocess.PIPE,
            text=True,
            timeout=30,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        log.warning(f"SLURM does not say when this job ends ({error}); the rule's runtime is used instead")
        return None
    return float(answer) if answer.isdecimal() else None
