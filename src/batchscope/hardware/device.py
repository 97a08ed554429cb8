"""The device and the precision of a model."""

import contextlib
import os
import resource
import sys
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple

import torch

from batchscope.errors import UserError
from batchscope.hardware.lease import runs_per_gpu

CONTEXT_BYTES = 512 * 2**20  # of CUDA and its libraries in each process, beside its tensors


class Place(NamedTuple):
    """Where and how a model computes. Both change the last digits of a result, and neither is part of a spec."""

    device: torch.device
    precision: torch.dtype

    @property
    def precision_name(self) -> Literal["float32", "bfloat16"]:
        """The precision as the config and the manifests write it."""
        return "bfloat16" if self.precision == torch.bfloat16 else "float32"

    @property
    def name(self) -> str:
        """Such as ``bfloat16-cuda``."""
        return f"{self.precision_name}-{self.device.type}"

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision for the forward pass; see ``autocast``."""
        return autocast(self.device, self.precision)


def pick_place(device: str, precision: str) -> Place:
    """The device and the precision of a job, from the config's ``device`` and ``precision``. UserError as below."""
    picked = pick_device(device)
    return Place(picked, resolve_precision(precision, picked))


def pick_device(wanted: str) -> torch.device:
    """The device for ``auto | cpu | cuda | mps``. Raises UserError if it is not available."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        wanted = next(name for name, available in found.items() if available)
    if not found[wanted]:
        raise UserError(
            f"device: {wanted} is not available here (available: {', '.join(n for n, a in found.items() if a)}); "
            "set `device: auto`, or run where it is available"
        )
    if wanted == "cuda" and runs_per_gpu() > 1:
        _keep_to_own_share(runs_per_gpu())
    return torch.device(wanted)


def _keep_to_own_share(runs: int) -> None:
    """Limit the memory of this process on each visible GPU, so that each of ``runs`` jobs can have as much."""
    for number in range(torch.cuda.device_count()):
        torch.cuda.set_per_process_memory_fraction(
            share_of_memory(torch.cuda.get_device_properties(number).total_memory, runs), number
        )


def share_of_memory(total_bytes: int, runs: int) -> float:
    """The fraction of a GPU's memory that each of ``runs`` processes may fill. Raises UserError if none is left."""
    if (share := 1 / runs - CONTEXT_BYTES / total_bytes) <= 0:
        raise UserError(f"runs_per_gpu: {runs} is too many for a GPU with {total_bytes / 2**30:.0f} GiB")
    return share


def resolve_precision(wanted: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 where its products are fast: on CUDA from Ampere on, on CPUs with AVX-512 BF16 or AMX."""
    if wanted != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[wanted]
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        fast = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[object]:
    """Mixed precision for the forward pass; nothing for float32 and float64."""
    if precision == torch.bfloat16:
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def compute_deterministically() -> None:
    """Make repeated computations equal bit for bit: deterministic kernels only, no TF32.

    Call it before anything runs on the GPU: cuBLAS reads its setting when it starts.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def use_threads(threads: int | None) -> None:
    """Compute with ``threads`` CPU threads; None leaves the number as it is."""
    if threads is not None:
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)


def device_name(device: torch.device) -> str:
    """The name of the hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return str(torch.cpu.get_capabilities().get("cpu_name", "CPU"))
    return "Apple MPS"


def peak_memory_bytes(device: torch.device) -> int:
    """Largest memory held at once, in bytes: by tensors on a GPU, by the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
