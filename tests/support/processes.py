"""What the process of a job writes of itself while it runs; waiting for a process that is no child of the test."""

import os
import socket
import time

import psutil
from jobs import Jobs

from batchscope.watch.pulse import machine, started_ticks


def process(jobs: Jobs, **changes: object) -> dict[str, object]:
    """What the process of this test would write of itself."""
    return {
        "host": socket.gethostname(),
        "machine": machine(),
        "pid": os.getpid(),
        "started_ticks": started_ticks(os.getpid()),
        "started": 0.0,
        "job_file": jobs.file().as_posix(),
        "phase": "working",
        "beat": 1,
    } | changes


def wait_for_the_end(number: int, seconds: float = 60) -> None:
    """Wait until this process is gone or a zombie, which only its parent can make go."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        try:
            if psutil.Process(number).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {number} has not ended after {seconds} s")
