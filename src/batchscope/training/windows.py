"""Which examples make up each update: orders, accumulation windows, micro-batches. Pure, no torch.

Everything is a function of its arguments, so resuming a run is arithmetic: the windows after update u are the same
whether or not this process trained the ones before.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from batchscope.training.spec import BudgetSpec, Tail, ValidationSpec


@dataclass(frozen=True)
class Window:
    """The examples of one update: positions ``start`` to ``stop`` in the order of their epoch.

    ``update`` and ``epoch`` count from 1; ``samples`` is the number of examples seen once the window is done.
    """

    update: int
    epoch: int
    start: int
    stop: int
    samples: int
    ends_epoch: bool

    @property
    def examples(self) -> int:
        """Number of examples in the window."""
        return self.stop - self.start


def random_stream(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """Independent random numbers for one purpose: a pure function of (seed, purpose, counters)."""
    return np.random.Generator(np.random.Philox(key=stream_seed(seed, purpose, *counters)))


def stream_seed(seed: int, purpose: str, *counters: int) -> int:
    """A 64-bit seed for (seed, purpose, counters), from SHA-256."""
    name = ":".join([str(seed), purpose, *map(str, counters)])
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def epoch_order(examples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Order of the training examples in ``epoch`` (from 1): a permutation of 0…examples−1, int64 ``[examples]``."""
    return random_stream(seed, "order", epoch).permutation(examples)


def windows(examples: int, target_batch_size: int, budget: BudgetSpec, tail: Tail = "exact") -> Iterator[Window]:
    """The accumulation windows of a run, in order.

    An epoch is cut into windows of exactly ``target_batch_size`` examples. The remaining examples are the epoch's tail
    window, which ``tail: drop`` leaves out. The last window of a budget in samples holds what is left of the budget.

    Raises ValueError if the target batch size is above the number of examples.
    """
    if target_batch_size > examples:
        raise ValueError(f"target batch size {target_batch_size} is above the {examples} training examples")
    update = samples = epoch = 0
    while budget.epochs is None or epoch < budget.epochs:
        epoch += 1
        stop_of_epoch = examples - examples % target_batch_size if tail == "drop" else examples
        for start in range(0, stop_of_epoch, target_batch_size):
            left = target_batch_size if budget.samples is None else budget.samples - samples
            stop = min(start + target_batch_size, stop_of_epoch, start + left)
            update += 1
            samples += stop - start
            done = update == budget.updates or samples == budget.samples
            yield Window(update, epoch, start, stop, samples, ends_epoch=done or stop == stop_of_epoch)
            if done:
                return


def validates_after(window: Window, every: ValidationSpec | None) -> bool:
    """Whether a run is validated after ``window``: at the end of its epoch, and where ``every`` says.

    ``every.samples`` is due with the window in which a multiple of it is reached, whatever the window's size.
    """
    if window.ends_epoch or every is None:
        return window.ends_epoch
    if every.updates is not None:
        return window.update % every.updates == 0
    assert every.samples is not None
    return window.samples // every.samples > (window.samples - window.examples) // every.samples


def update_at(plan: Sequence[Window], samples: int) -> int:
    """Number of the first update of a run after which it has seen ``samples`` examples; 0 for none.

    Raises ValueError if the whole run sees fewer.
    """
    if samples > plan[-1].samples:
        raise ValueError(f"{samples} samples are beyond the end of the run, which sees {plan[-1].samples}")
    return next(window.update for window in plan if window.samples >= samples) if samples else 0


def branch_windows(plan: Sequence[Window], update: int, samples: int, factor: int) -> list[Window]:
    """The windows of a branch after ``update``: ``factor`` consecutive windows of the run joined, within an epoch.

    So all branches see the same examples in the same order, and factor 1 is the run. A window has the number of the
    first update that it replaces. The branch ends with the update of the run that completes ``samples`` examples.
    Raises ValueError if the run ends before.
    """
    begun = plan[update - 1].samples if update else 0
    rest = plan[update : update_at(plan, begun + samples)]
    joined = []
    for _, epoch in groupby(rest, key=lambda window: window.epoch):
        own = list(epoch)
        for start in range(0, len(own), factor):
            first, last = own[start], own[min(start + factor, len(own)) - 1]
            joined.append(replace(last, update=first.update, start=first.start))
    return joined


def micro_batches(window: Window, physical_batch_size: int) -> Iterator[tuple[int, int]]:
    """Cut a window into (start, stop) of at most ``physical_batch_size`` examples; the last may be shorter."""
    for start in range(window.start, window.stop, physical_batch_size):
        yield start, min(start + physical_batch_size, window.stop)


def loss_scale(
    window: Window, examples: int, target_batch_size: int, tail: Tail, naive_physical_batch_size: int | None = None
) -> float:
    """Factor of a micro-batch's *summed* loss in the window's loss; the micro-batch holds ``examples`` examples.

    ``exact`` and ``drop``: 1 / (examples of the window), so the window's gradient is that of its full batch.
    ``naive`` is the division of the reference study: the mean loss of the micro-batch, divided by the accumulation
    steps of a full window. It makes the gradient of a tail window too small.
    """
    if tail != "naive":
        return 1.0 / window.examples
    assert naive_physical_batch_size is not None
    accumulation_steps = -(-target_batch_size // naive_physical_batch_size)
    return 1.0 / (examples * accumulation_steps)
