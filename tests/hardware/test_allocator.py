"""What a process does with the memory of freed tensors: each case in a process of its own, whose page faults count."""

import json
import os
import platform
import subprocess
import sys

import pytest

from batchscope.hardware.allocator import SETTINGS

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this machine's C library is not glibc")

ROUNDS = 20
MEBIBYTES = 64
MEASURE = f"""
import resource
import torch
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for number in range(2 * {ROUNDS}):
    if number == {ROUNDS}:
        before = faults()
    torch.zeros({MEBIBYTES}, 2**20, dtype=torch.uint8)
print((faults() - before) * resource.getpagesize() / 2**20)
"""
KEEP = """
from batchscope.hardware.allocator import keep_freed_memory
keep_freed_memory()
"""
TRAIN = """
import json, sys
from pathlib import Path
from batchscope.training.loop import train
from batchscope.training.spec import TrainSettings, TrainSpec
spec, tokens, folder = TrainSpec.read(json.loads(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])
train(spec, "code", TrainSettings(physical_batch_size=6, device="cpu"), tokens, folder / "run", folder / "state")
"""
CERTIFY = """
import json, sys
from pathlib import Path
from batchscope.certificate.certify import certify
from batchscope.certificate.spec import CertificateSpec
spec = CertificateSpec.read(json.loads(sys.argv[1]))
certify(spec, Path(sys.argv[2]), Path(sys.argv[3]) / "certificate.json")
"""


def mebibytes_faulted(after: str, *arguments: object, **settings: str) -> float:
    """MiB that the system had to hand out for twenty tensors of 64 MiB, one after the other and once as many before."""
    theirs = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    command = [sys.executable, "-c", after + MEASURE, *map(str, arguments)]
    said = subprocess.run(command, env=theirs | settings, check=True, capture_output=True, text=True).stdout
    return float(said.splitlines()[-1])


def test_freed_memory_is_used_again():
    assert mebibytes_faulted(KEEP) < MEBIBYTES
    assert mebibytes_faulted("") > 0.9 * ROUNDS * MEBIBYTES, "there is nothing to keep: the module can go"


def test_the_settings_of_the_user_are_kept():
    assert mebibytes_faulted(KEEP, MALLOC_MMAP_THRESHOLD_="65536") > 0.9 * ROUNDS * MEBIBYTES


def test_a_training_keeps_what_it_frees(small_study, tmp_path):
    spec = small_study.spec("bert", budget={"epochs": 1}).plain()
    assert mebibytes_faulted(TRAIN, json.dumps(spec), small_study.tokens("bert"), tmp_path) < MEBIBYTES


def test_a_certificate_keeps_what_it_frees(small_study, tmp_path):
    spec = {"model": small_study.spec("bert").model.plain(), "seed": 1, "precision": "float32", "device": "cpu"}
    assert mebibytes_faulted(CERTIFY, json.dumps(spec), small_study.tokens("bert"), tmp_path) < MEBIBYTES
