"""What a process does with the memory of freed tensors: each case in a process of its own, whose page faults count."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import page_faults
import pytest
import torch
from forked import CONTEXT
from page_faults import MEBIBYTES, ROUNDS, mebibytes_faulted
from small import train_settings

from batchscope.certificate.certify import certify
from batchscope.certificate.spec import CertificateSpec
from batchscope.hardware.allocator import SETTINGS
from batchscope.training.loop import train

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this machine's C library is not glibc")

SUPPORT = str(Path(page_faults.__file__).parent)
KEEP = """
from batchscope.hardware.allocator import keep_freed_memory
keep_freed_memory()
"""
MEASURE = """
from page_faults import mebibytes_faulted
print(mebibytes_faulted())
"""


def faulted_afresh(before: str, **settings: str) -> float:
    """MiB that a fresh process is handed out, whose C library reads ``settings`` at its start."""
    theirs = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    here = {"PYTHONPATH": os.pathsep.join([SUPPORT, *filter(None, [os.environ.get("PYTHONPATH")])])}
    command = [sys.executable, "-c", before + MEASURE]
    said = subprocess.run(command, env=theirs | here | settings, check=True, capture_output=True, text=True).stdout
    return float(said)


def faulted_after(work: Callable[..., object], *arguments: object) -> float:
    """MiB that a forked process is handed out after its work."""
    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=measure, args=(sender, work, arguments))
    process.start()
    sender.close()
    found: float = receiver.recv()
    process.join()
    return found


def measure(sender: Connection, work: Callable[..., object], arguments: tuple[object, ...]) -> None:
    """In the forked process."""
    for name in [name for name in os.environ if name.startswith(SETTINGS)]:
        del os.environ[name]
    torch.set_num_threads(1)
    work(*arguments)
    sender.send(mebibytes_faulted())


def test_freed_memory_is_used_again():
    assert faulted_afresh(KEEP) < MEBIBYTES
    assert faulted_afresh("") > 0.9 * ROUNDS * MEBIBYTES, "there is nothing to keep: the module can go"


def test_the_settings_of_the_user_are_kept():
    assert faulted_afresh(KEEP, MALLOC_MMAP_THRESHOLD_="65536") > 0.9 * ROUNDS * MEBIBYTES


def test_a_training_keeps_what_it_frees(small_study, tmp_path):
    spec, settings = small_study.spec("bert", budget={"epochs": 1}), train_settings()
    tokens = small_study.tokens("bert")
    assert faulted_after(train, spec, "code", settings, tokens, tmp_path / "run", tmp_path / "state") < MEBIBYTES


def test_a_certificate_keeps_what_it_frees(small_study, tmp_path):
    spec = CertificateSpec(model=small_study.spec("bert").model, seed=1, precision="float32", device="cpu")
    assert faulted_after(certify, spec, small_study.tokens("bert"), tmp_path / "certificate.json") < MEBIBYTES


def nothing() -> None:
    """A process that does not ask to keep what it frees."""


def test_a_forked_process_gives_back_what_it_is_not_told_to_keep():
    assert faulted_after(nothing) > 0.9 * ROUNDS * MEBIBYTES
