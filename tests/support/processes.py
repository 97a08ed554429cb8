"""What the process of a job writes of itself, what everybody sees of processes, and the end of one that is no child."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def command_lines_kept(path: Path) -> Iterator[None]:
    """Write the command lines of all processes that this one starts meanwhile, one a line, as `ps` would show them."""
    seen: set[str] = set()
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.25):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    seen.add(" ".join(process.cmdline()))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        path.write_text("".join(f"{line!r}\n" for line in sorted(seen)))
