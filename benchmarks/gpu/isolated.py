"""Calls of functions in processes of their own, which start in a moment because the libraries are loaded once.

A failed kernel leaves a CUDA process useless, deterministic kernels are chosen for a whole process, and a hanging one
must be killed: so each check and each measurement has its own. They are forked from a server that has imported torch
and transformers and has not touched CUDA.
"""

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

PRELOADED = ["benchmarks.worker", "benchmarks.gpu.checks", "transformers.trainer", "accelerate"]
OUTPUT_KEPT = 2000
"""Characters of a failed call's output that are kept."""


class Outcome(NamedTuple):
    """What became of a call."""

    value: Any
    error: str | None
    """Traceback, or why the process ended; None where the function returned."""
    seconds: float


class Processes:
    """Makes processes: forked from a server (``forkserver``), or fresh ones that import everything (``spawn``)."""

    def __init__(self, method: str = "forkserver") -> None:
        self.context = multiprocessing.get_context(method)
        if method == "forkserver":
            self.context.set_forkserver_preload(PRELOADED)
            forkserver.ensure_running()

    def call(self, function: Callable[..., Any], *arguments: Any, limit: float = 600.0) -> Outcome:
        """Call a function of a module in a new process and wait for its value, up to ``limit`` seconds.

        Whatever the function does, this returns. What the process printed is added to the error.
        """
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "output"
            receiver, sender = self.context.Pipe(duplex=False)
            process = self.context.Process(target=_work, args=(sender, output, function, arguments))
            process.start()
            sender.close()
            patience = 10.0
            try:
                if receiver.poll(limit):
                    value, error = receiver.recv()
                else:
                    value, error, patience = None, f"stopped after {limit:.0f} s", 0.0
            except EOFError:
                process.join(patience)
                value, error = None, f"the process ended with exit code {process.exitcode}"
            except BaseException:  # the user interrupts
                patience = 0.0
                raise
            finally:
                _end(process, patience)
            if error is not None and output.exists():
                error = f"{error.strip()}\n\n" + output.read_text(encoding="utf-8", errors="replace")[-OUTPUT_KEPT:]
        return Outcome(value, error and error.strip(), time.monotonic() - started)


def _work(sender: Connection, output: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """In the new process: lead a group of its own, so that its children end with it, and send what was found."""
    os.setsid()
    file = output.open("wb")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    try:
        answer = (function(*arguments), None)
    except BaseException:
        answer = (None, traceback.format_exc())
    sender.send(answer)
    sender.close()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def _end(process: multiprocessing.process.BaseProcess, patience: float) -> None:
    """Wait ``patience`` seconds for the process's end, then kill it and what it started."""
    process.join(patience)
    if process.is_alive() and process.pid is not None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it leads no group yet
            process.kill()
        process.join()
