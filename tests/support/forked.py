"""Python programs in forked processes, which need not import torch or Snakemake again.

Each process of the tests forks a server off itself before its first test, when it has imported the libraries. What the
server forks is a process like any other: it can be killed, has its own environment and folder, and is given a command
line. Tests that are about the start of a process, its imports or the code that it finds start a fresh one.
"""

import faulthandler
import importlib
import logging
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

PRELOADED = [
    *("batchscope.training.loop", "batchscope.provenance.handover", "batchscope.evaluation.evaluate"),
    *("batchscope.insight.attention", "batchscope.tracking", "transformers.models.bert.modeling_bert"),
    *("transformers.models.modernbert.modeling_modernbert", "accelerate", "snakemake.cli", "hashed_code"),
]
STARTING = "batchscope.cli.main"
"""Takes its import for the start of the process."""
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([])


def serve() -> None:
    """Start the server if it does not run yet: a fork of this process, not the fresh one of multiprocessing."""
    for name in PRELOADED:
        importlib.import_module(name)
    resource_tracker.ensure_running()  # a fresh one
    with mock.patch.object(util, "spawnv_passfds", _fork_server):
        forkserver.ensure_running()


def _fork_server(_: object, command: list[str], kept: list[int]) -> int:
    """Fork a process that keeps these descriptors and runs the program which ends ``command``; its number."""
    sys.stdout.flush()
    sys.stderr.flush()
    if child := os.fork():
        return child
    try:
        _leave_pytest(kept)
        exec(command[-1], {})
    finally:
        os._exit(0)


def _leave_pytest(kept: list[int]) -> None:
    """Drop what belongs to the process of the tests: its files, streams, handlers, and the measuring of lines."""
    faulthandler.disable()
    sys.settrace(None)
    threading.settrace(None)
    logging.getLogger().handlers.clear()
    ends = [2, *sorted(kept), os.sysconf("SC_OPEN_MAX")]
    for before, after in pairwise(ends):
        os.closerange(before + 1, after)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    forkserver._forkserver._lock = threading.Lock()  # this process forked while it held the lock


class Forked:
    """``python -m MODULE WORDS`` in ``folder``; ``before`` is called there first, in the new process."""

    def __init__(
        self,
        module: str,
        words: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        before: Callable[[], object] | None = None,
    ) -> None:
        self.words = [module, *words]
        self.output = tempfile.TemporaryDirectory()
        streams = [Path(self.output.name) / name for name in ("out", "err")]
        arguments = (self.words, folder, dict(environment), before, streams)
        serve()
        self.process: BaseProcess = CONTEXT.Process(target=_begin, args=arguments)
        self.process.start()

    def complete(self, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Wait for the end."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"{self.words} has not ended after {timeout} s"
        out, err = ((Path(self.output.name) / name).read_text() for name in ("out", "err"))
        self.output.cleanup()
        return subprocess.CompletedProcess(self.words, self.process.exitcode, out, err)


def together(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """The same with all output in ``stdout``."""
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout + done.stderr)


def _begin(
    words: list[str],
    folder: Path,
    environment: Mapping[str, str],
    before: Callable[[], object] | None,
    streams: list[Path],
) -> None:
    """In the new process."""
    for number, path in enumerate(streams, start=1):
        with path.open("w") as file:
            os.dup2(file.fileno(), number)
    os.chdir(folder)
    _become(words, environment, before)


def _become(words: list[str], environment: Mapping[str, str], before: Callable[[], object] | None = None) -> None:
    sys.modules.pop(STARTING, None)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    if before is not None:
        before()
    sys.argv = list(words)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def forget_the_package() -> None:
    """Import batchscope anew where it is imported next: from another checkout, which PYTHONPATH names."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "batchscope"]:
        del sys.modules[name]


def run_forked(
    command: Sequence[str], *, env: Mapping[str, str], before: Callable[[], object] | None = None, **_: object
) -> subprocess.CompletedProcess[str]:
    """``subprocess.run`` of ``python -m MODULE …`` with one stream for all output, called in a forked process."""
    python, option, *words = command
    assert (python, option) == (sys.executable, "-m")
    with tempfile.TemporaryFile("w+") as output:
        if (child := os.fork()) == 0:
            status = 1
            try:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                _become(words, env, before)
                status = 0
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(bool(end.code))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        return subprocess.CompletedProcess(list(command), status, output.read(), None)
