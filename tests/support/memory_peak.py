"""How much memory a call takes at its peak, measured in a process of its own."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path


def anonymous_bytes() -> int:
    """Memory of this process that is no file's; Linux alone."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def peak_of(call: Callable[[], object]) -> int:
    """Largest ``anonymous_bytes`` while ``call`` lasts, looked at every millisecond."""
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, anonymous_bytes())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    call()
    done.set()
    watcher.join()
    return peak


def measured(program: str, *arguments: str) -> int:
    """The number that ``program`` prints in a process that gives freed arrays back at once."""
    here = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONPATH": os.pathsep.join(here)}
    command = [sys.executable, "-c", program, *arguments]
    return int(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout)
