"""When each update ended, without slowing the device down, and how much of the machine others used meanwhile."""

import time
from itertools import pairwise
from typing import NamedTuple

import psutil
import torch


class Edge(NamedTuple):
    """An end of the counted stretch, in seconds: on the wall, of this process's CPU time, of all processes'."""

    wall: float
    own: float
    all: float

    @classmethod
    def now(cls) -> "Edge":
        """This moment."""
        cpu = psutil.cpu_times()
        return cls(time.perf_counter(), time.process_time(), sum(cpu) - cpu.idle - getattr(cpu, "iowait", 0.0))


class Clock:
    """Told of each update's end, it leaves out ``warm_up`` updates at the start and, on a GPU, one at the end.

    On a GPU an update's end is an event in the stream; the host waits for the device twice only, where the counted
    stretch begins and ends. The update left out at the end is for a contender that reads an update's numbers while
    the next one runs: it hears of all updates equally late, except the last.
    """

    def __init__(self, device: str, updates: int, warm_up: int) -> None:
        self.cuda = device == "cuda"
        self.first, self.last = warm_up, updates - 1 if self.cuda else updates
        assert 1 <= self.first < self.last, f"{updates} updates leave none to count after {warm_up} to warm up"
        self.told = 0
        self.edges: list[Edge] = []
        self.marks: list[float] = []
        self.events: list[torch.cuda.Event] = []

    def tick(self) -> None:
        """An update has ended."""
        self.told += 1
        if not self.first <= self.told <= self.last:
            return
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.events.append(event)
        else:
            self.marks.append(time.perf_counter())
        if self.told in (self.first, self.last):
            if self.cuda:
                torch.cuda.synchronize()
            self.edges.append(Edge.now())

    @property
    def seconds(self) -> float:
        """Wall time of the counted updates."""
        return self.edges[1].wall - self.edges[0].wall

    @property
    def cores_taken_by_others(self) -> float:
        """CPU cores that other processes kept busy on average meanwhile (of the whole host, in a container)."""
        begin, end = self.edges
        return max(0.0, (end.all - begin.all - (end.own - begin.own)) / (end.wall - begin.wall))

    def update_seconds(self) -> list[float]:
        """Duration of each counted update."""
        if self.cuda:
            return [a.elapsed_time(b) / 1000 for a, b in pairwise(self.events)]
        return [b - a for a, b in pairwise(self.marks)]
