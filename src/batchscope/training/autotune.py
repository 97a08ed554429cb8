"""The micro-batch's size and how it is computed: chosen by a short trial before a run, kept when the run resumes."""

import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal

import numpy as np
import torch

from batchscope.errors import UserError
from batchscope.training.accumulate import AccelerateEngine, ManualEngine
from batchscope.training.ledger import Ledger
from batchscope.training.microbatch import DeviceTokens, MicroBatch
from batchscope.training.ranks import Ranks
from batchscope.training.windows import Window

log = logging.getLogger(__name__)
SMALLEST = 8
"""Smallest micro-batch of the search."""
WORTH = 1.02
"""Ratio of two rates above which the larger size counts as faster."""
MUCH = 1.25
"""Ratio of two rates above which the search goes on, however long it has taken."""
SHARE = 0.02
"""Share of a training's time that the search may take while it gains less than MUCH."""
ENOUGH_SECONDS = 0.5
"""A size is measured until its steps have taken this long, or four times."""
STEPS_OF_A_TRIAL = 8
"""Steps of one size that must take a small part of the training for a slow step to be measured twice."""
NEAR = 1.1
"""Ratio of two rates up to which the two fastest sizes are timed again, in turns."""
ROUNDS = 5
"""Rounds of this second timing."""


def choose_micro_step(
    wanted: int | Literal["auto"],
    window: Window,
    samples: int,
    data: DeviceTokens,
    engine: ManualEngine | AccelerateEngine,
    ledger: Ledger,
    ranks: Ranks,
    autocast: AbstractContextManager[object],
    timed: bool = True,
    may_halve: bool = True,
) -> None:
    """Choose the micro-batch and the micro-step; write both into ``ledger`` and ``engine``.

    A resumed run keeps its earlier choice. ``auto`` takes the micro-batch with the most examples per second, measured
    on the first examples of ``window``, in a small part of the time that ``samples`` will take. Several ranks compute
    eagerly and use the first rank's choice. Unless ``timed``, micro-batches are computed eagerly: a graph draws other
    dropout masks, and a timing does not repeat. Where a micro-batch does not fit into memory, its half is taken if the
    run ``may_halve`` it.
    """
    order = data.order(np.arange(window.examples))

    def batch_of(size: int) -> MicroBatch:
        return data.micro_batch(order[:size], 1 / window.examples)

    def seconds_for(size: int) -> float:
        batch = batch_of(size)
        engine.prepare(batch, autocast, None)
        twice = SHARE * samples / size >= STEPS_OF_A_TRIAL
        seconds = seconds_of(lambda: engine.accumulate([batch], autocast), data.device, twice)
        engine.zero_grad()
        return seconds

    kind = ledger.trial.get("micro_step")
    if not ledger.physical_batch_size:
        if wanted == "auto":
            wanted, ledger.trial["samples_per_second"] = fastest_micro_batch(seconds_for, window.examples, samples)
        ledger.physical_batch_size = ranks.same(wanted)
    if ranks.size > 1 or not timed:
        kind = "eager"
    while True:
        size = min(ledger.physical_batch_size, window.examples)
        try:
            ledger.trial |= engine.prepare(batch_of(size), autocast, kind)
            return
        except torch.OutOfMemoryError as error:
            if not may_halve:
                raise
            engine.zero_grad()
            ledger.physical_batch_size = halved(size, error)


def seconds_of(work: Callable[[], object], device: torch.device, twice: bool) -> float:
    """Shortest duration of ``work`` in seconds, of up to three after a first one; fewer if one takes half a second.

    The first one also allocates memory. It is the only one for slow work, unless that is done at least ``twice``.
    """

    def once() -> float:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    durations = [once()]
    while len(durations) < 4 and (sum(durations) < ENOUGH_SECONDS or (twice and len(durations) == 1)):
        durations.append(once())
    return min(durations[1:] or durations)


def fastest_micro_batch(
    seconds_for: Callable[[int], float], largest: int, samples: int
) -> tuple[int, dict[str, float]]:
    """The power of two from 8 to ``largest`` with the most examples per second, and the rates of all sizes tried.

    ``seconds_for(size)`` trains on ``size`` examples and returns its duration. The search ends when memory runs out,
    or after two sizes in a row that gain less than 2%. Once it has taken 2% of the time that ``samples`` will take at
    the best rate, it ends with the first size that gains less than a quarter. Below 8, the size is ``largest``.

    A single timing of two sizes that are about as fast says little. If time is left of the 2%, the two fastest are
    timed again, in turns: see ``larger_is_faster``.
    """
    started = time.perf_counter()
    best, best_rate, disappointments = min(SMALLEST, largest), 0.0, 0
    rates: dict[int, float] = {}
    took: dict[int, float] = {}
    size = best
    while size <= largest and disappointments < 2:
        begun = time.perf_counter()
        try:
            rate = size / seconds_for(size)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        log.info(f"micro-batch of {size}: {rate:.1f} samples/s")
        rates[size], took[size] = rate, time.perf_counter() - begun
        gains_little = rate < best_rate * MUCH
        if rate > best_rate * WORTH:
            best, best_rate, disappointments = size, rate, 0
        else:
            disappointments += 1
        if gains_little and time.perf_counter() - started > SHARE * samples / best_rate:
            break
        size *= 2
    rivals = [size for size, rate in rates.items() if size != best and rate * NEAR > best_rate]
    if rivals:
        smaller, larger = sorted((best, max(rivals, key=rates.__getitem__)))
        left = SHARE * samples / best_rate - (time.perf_counter() - started)
        rounds = min(ROUNDS, math.floor(left / max(took[smaller] + took[larger], 1e-6)))
        if rounds >= 3:
            best = larger if larger_is_faster(seconds_for, smaller, larger, rounds) else smaller
    return best, {str(size): rate for size, rate in rates.items()}


def larger_is_faster(seconds_for: Callable[[int], float], smaller: int, larger: int, rounds: int) -> bool:
    """Whether the ``larger`` of two sizes has the higher rate by 2% in at least three quarters of ``rounds``.

    The two take turns, so that a machine that is slow for a while slows both. In a tie the smaller is preferred: it
    needs less memory.
    """
    wins = 0
    for number in range(rounds):
        rates = {size: size / seconds_for(size) for size in (smaller, larger)[:: 1 if number % 2 == 0 else -1]}
        wins += rates[larger] > rates[smaller] * WORTH
        log.info(f"micro-batches of {smaller} and {larger}: {rates[smaller]:.1f} and {rates[larger]:.1f} samples/s")
    return wins >= rounds * 3 / 4


def halved(physical_batch_size: int, error: torch.OutOfMemoryError) -> int:
    """Half the micro-batch, after it did not fit into memory. Raises UserError if it holds one review only."""
    if physical_batch_size == 1:
        raise UserError(
            "out of memory with a micro-batch of one review: lower `data.max_length`, choose a smaller model or use a "
            "device with more memory"
        ) from error
    log.warning(
        f"out of memory with a micro-batch of {physical_batch_size}: continuing with {physical_batch_size // 2}; "
        "the windows and their gradients stay the same"
    )
    torch.cuda.empty_cache()
    return physical_batch_size // 2
