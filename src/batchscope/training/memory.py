"""The micro-batch: the fastest that fits, and a smaller one when memory runs out after all."""

import logging
import time
from collections.abc import Callable

import torch

from batchscope.errors import UserError

log = logging.getLogger(__name__)
SMALLEST = 8
WORTH = 1.02
ENOUGH_SECONDS = 0.5
SHARE = 0.02
"""What of a training's time the search may take while it gains little."""
MUCH = 1.25


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """The least seconds of ``work`` in up to three goes after a first one; in fewer where one takes half a second."""

    def once() -> float:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    durations = [once()]
    while len(durations) < 4 and sum(durations) < ENOUGH_SECONDS:
        durations.append(once())
    return min(durations[1:] or durations)


def fastest_micro_batch(
    seconds_for: Callable[[int], float], largest: int, samples: int
) -> tuple[int, dict[str, float]]:
    """The power of two from 8 to ``largest`` with the most examples per second, and the rates of all that were tried.

    ``seconds_for(size)`` trains on ``size`` examples and says how long it took; out of memory ends the search, and so
    do two sizes in a row that gain less than 2%. Once it has taken 2% of the time that ``samples`` will take at the
    best rate, a size that gains less than a quarter is the last. ``largest`` itself if it is below 8.
    """
    started = time.perf_counter()
    best, best_rate, disappointments = min(SMALLEST, largest), 0.0, 0
    rates: dict[str, float] = {}
    size = best
    while size <= largest and disappointments < 2:
        try:
            rate = size / seconds_for(size)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        log.info(f"micro-batch of {size}: {rate:.1f} samples/s")
        rates[str(size)] = rate
        gains_little = rate < best_rate * MUCH
        if rate > best_rate * WORTH:
            best, best_rate, disappointments = size, rate, 0
        else:
            disappointments += 1
        if gains_little and time.perf_counter() - started > SHARE * samples / best_rate:
            break
        size *= 2
    return best, rates


def halved(physical_batch_size: int, error: torch.OutOfMemoryError) -> int:
    """Half the micro-batch, after it did not fit; raises UserError where one example is too much."""
    if physical_batch_size == 1:
        raise UserError(
            "out of memory with a micro-batch of one review: lower `data.max_length`, take a smaller model or a "
            "device with more memory"
        ) from error
    log.warning(
        f"out of memory with a micro-batch of {physical_batch_size}: going on with {physical_batch_size // 2}; "
        "the windows and their gradients stay what they are"
    )
    torch.cuda.empty_cache()
    return physical_batch_size // 2
