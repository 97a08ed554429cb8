"""A function on two ranks, each in a forked process of its own."""

import os
import socket
import time
from collections.abc import Callable

import forked
import torch
from torch.multiprocessing import start_processes


def on_two_ranks(function: Callable[..., None], *arguments: object, seconds: float = 120) -> None:
    """Call ``function(rank, *arguments)`` on both; it fails if one of them fails, or if they have not ended in time."""
    method = forked.CONTEXT.get_start_method()
    ranks = start_processes(_as_rank, (_free_port(), function, arguments), nprocs=2, join=False, start_method=method)
    give_up = time.monotonic() + seconds
    while not (ended := ranks.join(timeout=1)) and time.monotonic() < give_up:
        pass
    for process in ranks.processes:
        process.kill()
    assert ended, "the ranks wait for each other"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _as_rank(rank: int, port: int, function: Callable[..., None], arguments: tuple[object, ...]) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    function(rank, *arguments)
