"""What a process does with the memory of freed tensors: each case in a process of its own, whose page faults count."""

import os
import platform
import subprocess
import sys

import pytest

from batchscope.training.heap import SETTINGS

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this machine's C library is not glibc")

ROUNDS = 20
MEBIBYTES = 64
PROGRAM = f"""
import resource
from batchscope.training.heap import keep_freed_memory
KEEP
import torch
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for number in range(2 * {ROUNDS}):
    if number == {ROUNDS}:
        before = faults()
    torch.zeros({MEBIBYTES}, 2**20, dtype=torch.uint8)
print((faults() - before) * resource.getpagesize() / 2**20)
"""


def mebibytes_faulted(keep: bool, **settings: str) -> float:
    """MiB that the system had to hand out for twenty tensors of 64 MiB, one after the other and once as many before."""
    program = PROGRAM.replace("KEEP", "keep_freed_memory()" if keep else "")
    theirs = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, env=theirs | settings, check=True, capture_output=True, text=True).stdout
    return float(said)


def test_freed_memory_is_used_again() -> None:
    assert mebibytes_faulted(keep=True) < MEBIBYTES
    assert mebibytes_faulted(keep=False) > 0.9 * ROUNDS * MEBIBYTES, "there is nothing to keep: the module can go"


def test_the_settings_of_the_user_stand() -> None:
    assert mebibytes_faulted(keep=True, MALLOC_MMAP_THRESHOLD_="65536") > 0.9 * ROUNDS * MEBIBYTES
