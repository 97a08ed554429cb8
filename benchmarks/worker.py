"""One task in a process of its own: ``python -m benchmarks.worker TASK JOB.json OUTPUT.json``.

``prepare`` is imported where it is used: it needs libraries that timing a training does not.
"""

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from batchscope.files import write_json
from batchscope.model.flops import FORMULA
from benchmarks import fairness, flops, machine
from benchmarks.clock import Clock
from benchmarks.contenders import ours
from benchmarks.work import Work


def time_training(work: Work, contender: str, warm_up: int) -> dict[str, Any]:
    """Samples per second, update times and peak memory of one training, and the machine's product rate after it."""
    clock = Clock(work.device, work.updates, warm_up)
    if contender == "ours":
        # Its own way of telling: an optimizer step could be part of a recorded graph, which calls no hook.
        ours.train(work, lambda record: clock.tick() if record["kind"] == "update" else None)
    else:
        register_optimizer_step_post_hook(lambda *_: clock.tick())
        fairness.contenders([contender])[contender](work)
    if clock.told != work.updates:
        raise RuntimeError(f"{contender} made {clock.told} updates, not {work.updates}")
    update_seconds, memory = clock.update_seconds(), peak_memory_bytes(work.device)
    precision = work.facts.get("precision", work.precision)
    return {
        "samples_per_second": len(update_seconds) * work.target_batch_size / clock.seconds,
        "update_seconds": update_seconds,
        "cores_taken_by_others": clock.cores_taken_by_others,
        "peak_memory_bytes": memory,
        "precision": precision,
        "product_rate": machine.product_rate(work.device, getattr(torch, precision)),
        "facts": work.facts,
    }


def compare_gradients(work: Work, contenders: list[str]) -> dict[str, Any]:
    """See ``fairness.compared_gradients``; and, as the model is at hand, what a sample costs."""
    return {
        "gradients": fairness.compared_gradients(fairness.contenders(contenders), work),
        "gradient_tolerance": fairness.TOLERANCE,
        "flops_per_sample": flops.of_work(work),
        "flops_formula": FORMULA,
    }


def prepare_tokens(folder: str, train: int, validation: int) -> dict[str, str]:
    """See ``prepare.tokens``."""
    from benchmarks import prepare

    return {"path": str(prepare.tokens(Path(folder), train, validation))}


def prepare_checkpoint(folder: str, encoder: str, dropout: bool) -> dict[str, str]:
    """See ``prepare.checkpoint``."""
    from benchmarks import prepare

    return {"path": str(prepare.checkpoint(encoder, Path(folder), dropout))}


def prepare_run(folder: str, encoder: str, reviews: int, device: str) -> dict[str, str]:
    """See ``prepare.untrained_run``."""
    from benchmarks import prepare

    return {"path": str(prepare.untrained_run(encoder, Path(folder), reviews, device))}


def describe_machine(device: str, threads: int) -> dict[str, Any]:
    """Hardware and versions."""
    return machine.describe(device, threads)


def cuda_is_there() -> dict[str, bool]:
    """Whether the cases for a GPU can run."""
    return {"there": torch.cuda.is_available()}


def peak_memory_bytes(device: str) -> int:
    """Most memory held at once: on the GPU by tensors, on the CPU by the process.

    ``ru_maxrss`` would count the process that started this one, which is not ours to answer for.
    """
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    task.__name__: task
    for task in (
        time_training,
        compare_gradients,
        prepare_tokens,
        prepare_checkpoint,
        prepare_run,
        describe_machine,
        cuda_is_there,
    )
}


def main() -> None:
    """Do the task; write the JSON file."""
    task, job_file, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    job = json.loads(job_file.read_text(encoding="utf-8"))
    if "work" in job:
        job["work"] = Work.from_dict(job["work"])
        torch.set_num_threads(job["work"].threads)
    write_json(output, TASKS[task](**job))


if __name__ == "__main__":
    main()
