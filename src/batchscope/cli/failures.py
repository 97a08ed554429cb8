"""What is said where a job did not end by itself: memory that was short, and a process that the system killed."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from batchscope.errors import UserError

REMEDY = (
    "Run fewer jobs at once (a smaller `--cores`), give each more memory (on a cluster with "
    "`--set-resources RULE:mem_mb=…`), or set a smaller `physical_batch_size`. Finished work stays, and a training "
    "resumes from its last saved state"
)
KILLED = re.compile(r"--job (?P<job>\S+).*(?:exit status 137|SIGKILL)", re.DOTALL)
SAID_TWICE = ("no backup found", "CalledProcessError in file")
"""Of a job that fails Snakemake tells its rule, files, log and command, which is enough. Before that it tells the
command alone, and warns of each earlier file that is not there to be restored."""


@contextmanager
def naming_short_memory(job: str) -> Iterator[None]:
    """Raise UserError, with the job and what to change, where memory of the CPU cannot be had."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # PyTorch's allocator for the CPU has no exception of its own.
        if not isinstance(error, MemoryError) and "can't allocate memory" not in str(error):
            raise
        raise UserError(f"{job} needs more memory than it may have. {REMEDY}") from error


def is_told(record: logging.LogRecord) -> bool:
    """A filter for Snakemake's log: nothing twice, and a killed job's record says what that means."""
    text = record.getMessage()
    killed = KILLED.search(text) if "CalledProcessError" in text else None
    if killed:
        record.msg, record.args = (
            f"{killed['job']} was killed (SIGKILL), as systems do where memory is short. {REMEDY}.",
            (),
        )
        return True
    return not any(words in text for words in SAID_TWICE)
