"""How long the jobs of a plan take beside each other: list scheduling on the cores and GPUs that Snakemake is given."""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from batchscope.provenance.plan import PlannedJob


class Needs(NamedTuple):
    """What a job occupies while it runs."""

    cores: int
    gpus: int


def wall_seconds(jobs: Sequence[PlannedJob], cores: int, gpus: int) -> float:
    """Seconds until the last job ends, where each starts as soon as what it needs is done and free.

    Of several ready jobs that fit, the one with the highest priority starts first, else the earliest in the plan:
    Graham's list scheduling, which Snakemake's own choice resembles. Like Snakemake it gives a job at most all cores
    and all GPUs. A job whose duration is unknown takes no time.
    """
    occupied = [Needs(min(job.threads, cores), min(job.gpus, gpus)) for job in jobs]
    position = {job.name: number for number, job in enumerate(jobs)}
    waiting = [{position[name] for name in job.needs if name in position} for job in jobs]
    followers: list[list[int]] = [[] for _ in jobs]
    ready: dict[Needs, list[tuple[int, int]]] = {}
    for number, needed in enumerate(waiting):
        for other in needed:
            followers[other].append(number)
    for number in range(len(jobs)):
        if not waiting[number]:
            _make_ready(ready, occupied, jobs, number)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while fitting := [one for one in ready if one.cores <= cores and one.gpus <= gpus]:
            taken = min(fitting, key=lambda one: ready[one][0])
            _, number = heapq.heappop(ready[taken])
            if not ready[taken]:
                del ready[taken]
            cores, gpus = cores - taken.cores, gpus - taken.gpus
            heapq.heappush(running, (now + (jobs[number].seconds or 0.0), number))
        now, number = heapq.heappop(running)
        cores, gpus = cores + occupied[number].cores, gpus + occupied[number].gpus
        for other in followers[number]:
            waiting[other].discard(number)
            if not waiting[other]:
                _make_ready(ready, occupied, jobs, other)
    return now


def _make_ready(
    ready: dict[Needs, list[tuple[int, int]]], occupied: Sequence[Needs], jobs: Sequence[PlannedJob], number: int
) -> None:
    """Put a job into the queue of those that occupy as much as it does."""
    heapq.heappush(ready.setdefault(occupied[number], []), (-jobs[number].priority, number))
