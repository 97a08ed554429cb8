"""Which micro-batch, and how it is done: settled by a short trial before a run begins, and kept over restarts."""

from contextlib import AbstractContextManager

import numpy as np

from batchscope.training.accumulate import AccelerateEngine, ManualEngine
from batchscope.training.ledger import Ledger
from batchscope.training.memory import fastest_micro_batch, seconds_of
from batchscope.training.microbatch import DeviceTokens, MicroBatch
from batchscope.training.ranks import Ranks
from batchscope.training.windows import Window


def choose_micro_step(
    wanted: int | str,
    window: Window,
    samples: int,
    data: DeviceTokens,
    engine: ManualEngine | AccelerateEngine,
    ledger: Ledger,
    ranks: Ranks,
    autocast: AbstractContextManager[object],
) -> None:
    """Settle micro-batch and micro-step in ``ledger`` and ``engine``: as before a restart, else as ``wanted``.

    ``auto`` takes the micro-batch with the most examples per second, measured on the first examples of ``window``,
    in a small part of the time that ``samples`` will take.
    Several ranks go on eagerly with the first one's choice.
    """
    order = data.order(np.arange(window.examples))

    def batch_of(size: int) -> MicroBatch:
        return data.micro_batch(order[:size], 1 / window.examples)

    def seconds_for(size: int) -> float:
        batch = batch_of(size)
        engine.prepare(batch, autocast, None)
        seconds = seconds_of(lambda: engine.accumulate([batch], autocast), data.device)
        engine.zero_grad()
        return seconds

    kind = ledger.trial.get("micro_step")
    if not ledger.physical_batch_size:
        if wanted == "auto":
            wanted, ledger.trial["samples_per_second"] = fastest_micro_batch(seconds_for, window.examples, samples)
        ledger.physical_batch_size = ranks.same(int(wanted))
    if ranks.size > 1:
        kind = "eager"
    ledger.trial |= engine.prepare(batch_of(min(ledger.physical_batch_size, window.examples)), autocast, kind)
