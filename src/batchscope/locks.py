"""Locks between processes, on files. The kernel releases a lock when its process ends, however it ends."""

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

log = logging.getLogger(__name__)
POLL_SECONDS = 1.0
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def take(path: Path, held: ExitStack) -> bool:
    """Lock ``path`` if no other process holds it; ``held`` releases it. The file stays.

    Raises OSError if the file system has no locks.
    """
    file: TextIO = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    except OSError:
        file.close()
        raise
    if not _is_at(path, file):  # its holder deleted it in between
        file.close()
        return False
    held.callback(file.close)
    # Closing alone does not unlock it while a forked child has the file open.
    held.callback(fcntl.flock, file, fcntl.LOCK_UN)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return True


def holder(path: Path) -> str:
    """The process that holds the lock, in words."""
    try:
        return path.read_text(encoding="utf-8").strip() or "an unknown process"
    except FileNotFoundError:
        return "a process that has just ended"


@contextmanager
def waiting_lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lock on ``path``; wait for it as long as another process holds it, and say for ``what``.

    The file is deleted at the end. Where the file system has no locks, a warning is logged and nothing is held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            _wait(path, what, held)
            held.callback(path.unlink, missing_ok=True)  # before it is unlocked: nobody else can hold this file
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            log.warning(f"{path.parent} is on a file system without locks: do not start {what} twice at once")
        yield


def _wait(path: Path, what: str, held: ExitStack) -> None:
    told = False
    while True:
        with ExitStack() as attempt:
            if take(path, attempt):
                held.push(attempt.pop_all())
                return
        if not told:
            log.info(f"{holder(path)} is at work on {what}: waiting until it ends")
            told = True
        time.sleep(POLL_SECONDS)


def _is_at(path: Path, file: TextIO) -> bool:
    """Whether the open file is still the one that ``path`` names."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
