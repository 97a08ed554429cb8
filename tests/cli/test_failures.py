"""Jobs that did not end by themselves: memory that is short, and the system's SIGKILL."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from batchscope.cli.failures import naming_short_memory
from batchscope.cli.main import ended_by_signals
from batchscope.errors import UserError
from batchscope.files import atomic
from batchscope.training.stop import Stopped


def of_torch() -> object:
    return torch.empty(1 << 46, dtype=torch.float64)


def of_python() -> object:
    return bytearray(1 << 50)


@pytest.mark.parametrize("allocate", [of_torch, of_python])
def test_short_memory_is_a_message_that_names_the_job_and_what_to_change(allocate: Callable[[], object]) -> None:
    needs = r"train/a needs more memory than it may have\..*`physical_batch_size`"
    with pytest.raises(UserError, match=needs), naming_short_memory("train/a"):
        allocate()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_never_replaced_by_one(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """``--output /dev/null`` put a file in its place where the user may write there, as in a container."""
    make(tmp_path / "output")
    for path in (tmp_path / "output", Path("/dev/null"), Path("/dev/stdout")):
        before = path.lstat().st_mode
        with pytest.raises(UserError, match=rf"{path} is a folder, a pipe or a device, .*another name"), atomic(path):
            raise AssertionError
        assert path.lstat().st_mode == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_outside_of_a_training_ends_a_job_with_one_message(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGTERM)
    interrupts = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    with pytest.raises(Stopped, match="evaluate/a was stopped by a signal"), ended_by_signals("evaluate/a"):
        os.kill(os.getpid(), number)
        time.sleep(10)
    signal.signal(signal.SIGINT, interrupts)
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="expected"), naming_short_memory("train/a"):
        torch.ones(2) @ torch.ones(3)


def test_a_killed_job_is_named_in_snakemakes_output(tmp_path: Path) -> None:
    """The failure of another job is told as Snakemake tells it: its log and command, and no exception."""
    (tmp_path / "Snakefile").write_text(
        "from snakemake.logging import logger\n"
        "from batchscope.cli.failures import is_told\n"
        "logger.addFilter(is_told)\n"
        "rule all:\n    input: 'killed', 'failed'\n"
        "rule killed:\n    output: 'killed'\n"
        "    shell: \"bash -c 'kill -9 $$' --jobs jobs.json --job train/bert/bs16/constant/seed1 --threads 1\"\n"
        "rule failed:\n    output: 'failed'\n    shell: 'false --job train/other > {output}'\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--keep-going", "--nocolor"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    told = done.stdout + done.stderr
    assert done.returncode == 1 and "CalledProcessError" not in told
    assert "train/bert/bs16/constant/seed1 was killed (SIGKILL), as systems do where memory is short" in told
    assert told.count("was killed") == 1 and "rule failed" in told
