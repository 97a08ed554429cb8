"""Peak memory of evaluation and attention, each at two numbers of reviews: it should not grow with them."""

import logging
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cases import Memory
from benchmarks.harness import Bench
from benchmarks.prepare import RUN

log = logging.getLogger(__name__)
RUNNER = (
    "import json, resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=sys.stderr); "
    "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss; "
    "print(peak if sys.platform == 'darwin' else peak * 1024)"
)
"""A small process between us and the verb: a child's peak begins with the size of the process that started it."""


def peak_memory_of_verb(arguments: list[Any], folder: Path, bench: Bench) -> tuple[int, float]:
    """Peak memory in bytes and wall seconds of one verb, called in ``folder``."""
    started = time.perf_counter()
    command = [sys.executable, "-c", RUNNER, sys.executable, "-m", "batchscope", *map(str, arguments)]
    finished = subprocess.run(command, cwd=folder, env=bench.environment(), text=True, capture_output=True, check=False)
    if finished.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{finished.stderr[-3000:]}")
    return int(finished.stdout), time.perf_counter() - started


def run_memory(case: Memory, bench: Bench) -> dict[str, Any]:
    """``evaluate`` and ``attention`` of the small encoder at two numbers of reviews each."""
    measurements = []
    for stage, sizes in (("evaluate", case.evaluated), ("attention", case.attended)):
        for reviews in sizes:
            options = {"folder": str(bench.folder), "encoder": case.encoder, "reviews": reviews, "device": case.device}
            folder = Path(bench.do("prepare_run", **options)["path"])
            (jobs,) = folder.glob("results/memory/jobs/*.json")
            arguments = [stage, "--jobs", jobs, "--job", f"{stage}/{RUN}", "--threads", bench.threads]
            peak, seconds = peak_memory_of_verb(arguments, folder, bench)
            log.info(f"{case.name}: {stage} of {reviews} reviews, {peak / 2**20:.0f} MiB, {seconds:.1f} s")
            measurements.append({"stage": stage, "reviews": reviews, "peak_memory_bytes": peak, "seconds": seconds})
    return bench.conditions(case.device, "made-up reviews of 8 to 64 tokens") | {
        "case": asdict(case),
        "measurements": measurements,
    }
