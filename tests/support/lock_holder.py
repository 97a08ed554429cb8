"""A process that holds a lock until it is killed."""

import subprocess
import sys
from pathlib import Path

HOLD = "import sys, time; from pathlib import Path; from contextlib import ExitStack; from batchscope.locks import take"
HOLD += "; stack = ExitStack(); assert take(Path(sys.argv[1]), stack); print('held', flush=True); time.sleep(600)"


def hold(path: Path) -> subprocess.Popen[str]:
    """Start a process that holds the lock until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process
