"""What a process does with the memory of freed tensors: what the system had to hand out, by the page faults."""

import resource

import torch

ROUNDS = 8
MEBIBYTES = 64


def mebibytes_faulted() -> float:
    """MiB that the system had to hand out for eight tensors of 64 MiB, one after the other and once as many before."""
    before = 0
    for number in range(2 * ROUNDS):
        if number == ROUNDS:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(MEBIBYTES, 2**20, dtype=torch.uint8)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / 2**20
