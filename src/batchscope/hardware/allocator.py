"""Keeps the memory of freed CPU tensors in the process.

glibc returns every freed block of more than a few MiB to the system at once, and the system hands it out again page by
page, each filled with zeros. A micro-batch frees and allocates gigabytes: on the machine of docs/benchmarks.md MiniLM
caused a million such page faults in 450 micro-batches, and this module reduces them to a fifth.
"""

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of <malloc.h>
LARGEST_INT = 2**31 - 1
ONE_GIB = 2**30
SETTINGS = ("MALLOC_", "GLIBC_TUNABLES")


def keep_freed_memory() -> None:
    """Let this process reuse the memory that it frees: blocks of up to 1 GiB come from the heap, which never shrinks.

    Does nothing if the C library is not glibc, or if the user's environment has settings for its allocator."""
    if any(name.startswith(SETTINGS) for name in os.environ):
        return
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(MMAP_THRESHOLD, ONE_GIB)
        adjust(TRIM_THRESHOLD, LARGEST_INT)
