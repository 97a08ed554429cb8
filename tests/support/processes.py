"""What the process of a job writes of itself while it runs."""

import os
import socket

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
