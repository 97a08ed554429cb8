"""Checks for ``tests/benchmarks/test_gpu_check.py``; they need no library, so a process for one starts at once."""

import os
import subprocess
import sys
import time


def holds(device, folder):
    """Finds something."""
    (folder / "file").write_text("x")
    return {"found": 3}


def is_wrong(device, folder):
    """Fails, and has printed why."""
    print("a kernel said something")
    raise AssertionError("0.5 is above 0.1")


def dies(device, folder):
    """Ends its process without a word."""
    os._exit(3)


def hangs(device, folder):
    """Waits for a child that does not end; its process id is in a file."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (folder / "child").write_text(str(child.pid))
    time.sleep(600)
