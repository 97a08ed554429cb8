"""Where and in what precision a model runs."""

import contextlib
import os
import resource
import sys
from contextlib import AbstractContextManager

import torch

from batchscope.errors import UserError
from batchscope.hardware.lease import runs_per_gpu

CONTEXT_BYTES = 512 * 2**20  # what CUDA and its libraries take for each process, beside its tensors


def pick_device(wanted: str) -> torch.device:
    """The device for ``auto | cpu | cuda | mps``; UserError if the one asked for is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        wanted = next(name for name, available in there.items() if available)
    if not there[wanted]:
        raise UserError(
            f"device: {wanted} is not available here (available: {', '.join(n for n, a in there.items() if a)}); "
            "set `device: auto`, or run where it is"
        )
    if wanted == "cuda" and runs_per_gpu() > 1:
        _keep_to_own_share(runs_per_gpu())
    return torch.device(wanted)


def _keep_to_own_share(runs: int) -> None:
    """Bound what this process may allocate on each visible GPU, so that the jobs it shares them with have as much."""
    for number in range(torch.cuda.device_count()):
        torch.cuda.set_per_process_memory_fraction(
            share_of_memory(torch.cuda.get_device_properties(number).total_memory, runs), number
        )


def share_of_memory(total_bytes: int, runs: int) -> float:
    """The fraction of a GPU's memory that each of ``runs`` processes may fill. Raises UserError if that is nothing."""
    if (share := 1 / runs - CONTEXT_BYTES / total_bytes) <= 0:
        raise UserError(f"runs_per_gpu: {runs} is too many for a GPU with {total_bytes / 2**30:.0f} GiB")
    return share


def resolve_precision(wanted: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 where the hardware multiplies it fast: CUDA from Ampere on, CPUs with AVX-512 BF16, AMX."""
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
    """Let the same computation give the same bits again: deterministic kernels alone, no TF32.

    To be called before anything runs on the GPU: cuBLAS reads its setting when it starts.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def use_threads(threads: int | None) -> None:
    """Compute with as many CPU threads as the job was given."""
    if threads is not None:
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)


def device_name(device: torch.device) -> str:
    """What the hardware calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return str(torch.cpu.get_capabilities().get("cpu_name", "CPU"))
    return "Apple MPS"


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory held at once: on the GPU by tensors, on the CPU by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
