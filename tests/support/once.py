"""Studies that several tests read: made once, also where pytest-xdist runs the tests in several processes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from pytest import TempPathFactory


def made_once(factory: TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that ``make`` has filled, in this process or in another worker of the same test run.

    All workers get the same folder, so no test may change it. A worker waits while another one makes the folder. What a
    failed ``make`` leaves behind is deleted before the next worker tries.
    """
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, finished = shared / name, shared / f"{name}.made"
    with FileLock(shared / f"{name}.lock"):
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            finished.touch()
    return folder
