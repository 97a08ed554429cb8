"""The machine: what it is, what runs on it, and how fast it multiplies matrices."""

import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil
import torch

from batchscope.hardware.device import device_name

SHOWN = ("torch", "transformers", "accelerate", "lightning", "datasets", "numpy")
SIDE = {"cpu": 2048, "cuda": 8192}
TRIALS = {"cpu": 5, "cuda": 20}


def product_rate(device: str, precision: torch.dtype) -> float:
    """FLOP/s of the best of some products of two large square matrices in ``precision``: the machine's own limit."""
    side = SIDE[device]
    a, b = (torch.randn(side, side, device=device).to(precision) for _ in range(2))
    seconds = []
    for _ in range(TRIALS[device] + 1):
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds[1:])


def describe(device: str, threads: int) -> dict[str, Any]:
    """Hardware and versions, as they stand above a table."""
    cpu = {
        "device": device_name(torch.device(device)),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_bytes": psutil.virtual_memory().total,
        "bfloat16": sorted(name for name in ("avx512_bf16", "amx_bf16") if torch.cpu.get_capabilities().get(name)),
        "system": f"{platform.system()} {platform.machine()}",
    }
    return cpu | {"python": sys.version.split()[0], "versions": {name: _version(name) for name in SHOWN}}


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
