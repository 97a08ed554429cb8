"""One training in progress: its model, its data, its counts, and the steps that the loop is made of.

The loop itself is in ``training/loop.py``. Everything random is a pure function of (seed, purpose, number), so a
resumed run continues as if it had never stopped.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from batchscope.data.tokens import load_tokens
from batchscope.errors import UserError
from batchscope.evaluation.counts import count
from batchscope.evaluation.predict import predict
from batchscope.evaluation.records import Scores
from batchscope.hardware.device import Place
from batchscope.hardware.telemetry import Telemetry
from batchscope.model.check import check_model
from batchscope.model.classifier import build_model
from batchscope.model.cpu_kernels import use_cpu_kernels
from batchscope.training.accumulate import ENGINES
from batchscope.training.autotune import choose_micro_step, halved
from batchscope.training.kept import KeptStates
from batchscope.training.ledger import Ledger, checkpoint_name
from batchscope.training.microbatch import DeviceTokens, MicroBatch, WindowSums
from batchscope.training.noise import WindowNorms, noise_columns, noise_gauge
from batchscope.training.nonfinite import explain, offending_examples
from batchscope.training.optimizer import make_optimizer, set_learning_rate
from batchscope.training.progress import ProgressLine
from batchscope.training.ranks import Ranks
from batchscope.training.readback import Guard, Reading
from batchscope.training.records import EpochLine, HistoryLine
from batchscope.training.spec import TrainSettings, TrainSpec
from batchscope.training.state import Workspace
from batchscope.training.stop import Stopped, StopRequest
from batchscope.training.windows import Window, epoch_order, loss_scale, micro_batches, stream_seed, windows

log = logging.getLogger(__name__)


class Launched(NamedTuple):
    """An update that the device was told to compute; its numbers are on their way to the host."""

    window: Window
    rows: torch.Tensor
    """Rows of the window's examples in the tokens, int64 ``[examples]``."""
    learning_rate: float
    reading: Reading
    noise: WindowNorms | None


class Run:
    """A training that can be launched update by update, validated, saved and resumed.

    The caller closes its ``stop``, ``telemetry``, ``line``, ``ranks`` and ``workspace``. Raises UserError for a mistake
    in config, data or machine.
    """

    def __init__(
        self,
        spec: TrainSpec,
        settings: TrainSettings,
        place: Place,
        tokens_folder: Path,
        folder: Path,
        observe: Callable[[HistoryLine], None],
        deadline: float | None,
        certified: bool = False,
    ) -> None:
        self.started = time.perf_counter()
        self.spec, self.settings, self.observe = spec, settings, observe
        self.place, self.device = place, place.device
        self.ranks = Ranks(self.device)
        self.train_tokens = load_tokens(tokens_folder / "train.arrow")
        self.validation_tokens = load_tokens(tokens_folder / "validation.arrow")
        self.plan = planned_windows(spec, len(self.train_tokens))
        classes, vocabulary = len(self.train_tokens.classes), self.train_tokens.vocabulary_size
        model = build_model(spec.model, classes, vocabulary, self.train_tokens.pad_token_id, spec.seed)
        if self.ranks.first and not folder.exists():
            check_model(model, self.train_tokens, None if certified else folder.parent)
        self.model = model.to(self.device).train()
        if self.device.type == "cpu":
            use_cpu_kernels(self.model.encoder)
        self.optimizer = make_optimizer(spec, self.model)
        self.guard = Guard(self.optimizer, self.device)
        self.gauge = noise_gauge(self.model, spec.noise_scale)
        self.workspace = Workspace(folder, writes=self.ranks.first)
        self.ledger = self._resume()
        self.ledger.select_from_all = spec.select_from == "all"
        self.started -= self.ledger.seconds
        self.data = DeviceTokens(self.train_tokens, self.device)
        self.stop = StopRequest(deadline)
        cards = self.ranks.size if self.ranks.first else 0
        self.telemetry = Telemetry(self.device, cards, self.ledger.telemetry)
        self.engine = ENGINES[spec.engine](self.model, self.optimizer, self._after_micro_batch)
        self.launched: deque[Launched] = deque()
        self.line = ProgressLine(self.plan[-1].samples, self.ledger.samples, visible=self.ranks.first)
        self.order, self.order_epoch = torch.empty(0), 0
        self.lap = self.saved = time.perf_counter()

    def choose_micro_step(self) -> None:
        """Choose the micro-batch and how it is computed, or keep the choice that the run began with.

        The time of the choice is not that of an update.
        """
        started = time.perf_counter()
        choose_micro_step(
            self.spec.naive_physical_batch_size or self.settings.physical_batch_size,
            self.plan[0],
            self.plan[-1].samples,
            self.data,
            self.engine,
            self.ledger,
            self.ranks,
            self.place.autocast(),
            timed=self.spec.determinism is None,
            may_halve=self.spec.tail != "naive",
        )
        self.lap = time.perf_counter()
        self.ledger.trial["seconds"] = self.ledger.trial.get("seconds", 0.0) + self.lap - started

    def stop_if_asked(self) -> None:
        """Raise Stopped on every rank if the first one has a reason to stop."""
        if self.ranks.same(self.stop.reason() is not None):
            raise Stopped(self.stop.reason() or "another rank was asked to")

    def launch(self, window: Window) -> None:
        """Have the device compute one update: gradient of the window, clipping, optimizer step. Waits for nothing."""
        if window.epoch != self.order_epoch:
            self.order = self.data.order(epoch_order(len(self.train_tokens), self.spec.seed, window.epoch))
            self.order_epoch = window.epoch
        learning_rate = set_learning_rate(self.optimizer, self.spec, window.update, len(self.plan))
        sums = self._accumulate(window)
        parameters = list(self.model.parameters())
        grad_norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        noise = self.gauge.close() if self.gauge else None
        reading = Reading(sums.loss, sums.correct, grad_norm, *([noise.norms] if noise else []))
        self.guard.watch(sums.loss, grad_norm)
        if self.spec.optimizer.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.spec.optimizer.max_grad_norm, grad_norm)
        self.engine.optimizer.step()
        self.engine.zero_grad()
        rows = self.order[window.start : window.stop]
        self.launched.append(Launched(window, rows, learning_rate, reading, noise))

    def settle(self, ahead: int = 0) -> None:
        """Write the launched updates to the history, except for the last ``ahead``. UserError if one is not finite."""
        while len(self.launched) > ahead:
            update = self.launched.popleft()
            loss, correct, norm, *norms = update.reading.values()
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self._give_up(update, loss, norm)
            line = self.ledger.count_update(update.window, loss, int(correct), update.learning_rate, norm)
            if update.noise:
                over_ranks = self.ranks.sum if self.ranks.size > 1 else None
                noise = noise_columns(update.noise, norms, norm, over_ranks)
                line["gradient_square"], line["noise_trace"] = noise["gradient_square"], noise["noise_trace"]
            self._write(line)
            self.lap, before = time.perf_counter(), self.lap
            self.ledger.update_seconds.append(self.lap - before)
            self.line.advance(update.window.examples, update.window.epoch, line["loss"])

    def validate(self, window: Window) -> None:
        """Scores on the validation split and a line of the history; a checkpoint where it is to be kept."""
        started = time.perf_counter()
        scores: Scores | None = None
        if self.ranks.first:
            logits = predict(self.model, self.validation_tokens, *self.place)
            scores = count(logits, self.validation_tokens.label)
        shared = self.ranks.same(scores)
        assert shared is not None
        line = (self.ledger.close_epoch if window.ends_epoch else self.ledger.count_validation)(window, shared)
        self.ledger.validation_seconds += time.perf_counter() - started
        self._write(line)
        kept = self.kept_checkpoints()
        if self.ranks.first and checkpoint_name(line) in kept:
            self.workspace.save_checkpoint(checkpoint_name(line), self.model, line)
            self.workspace.keep_checkpoints(kept)
        if line["kind"] == "epoch":
            log.info(describe(line))
        self.lap = time.perf_counter()

    def save_is_due(self) -> bool:
        """Whether ``save_every`` seconds have passed since the last saved state, by the first rank's clock.

        All ranks save after the same update: settling the updates before it sums tensors over the ranks.
        """
        return self.ranks.same(time.perf_counter() - self.saved >= self.settings.save_every)

    def save(self) -> None:
        """Save a state from which the run can resume; measure how long a stop must reserve for this."""
        saving = time.perf_counter()
        self.ledger.seconds, self.ledger.telemetry = saving - self.started, self.telemetry.totals()
        if self.ranks.first:
            states = self.model.state_dict(), self.optimizer.state_dict()
            self.workspace.save(self.ledger.to_saved(), *states, self.kept_checkpoints())
        self.lap = self.saved = time.perf_counter()
        self.stop.reserve = max(self.stop.reserve, 10 + 3 * (self.saved - saving))

    def kept_checkpoints(self) -> set[str]:
        """The files of the best validation so far and, with ``keep: all``, of all epochs' ends."""
        epochs = self.ledger.epochs if self.spec.keep == "all" else []
        return {checkpoint_name(line) for line in (*epochs, self.ledger.best) if line is not None}

    def keep_state(self, kept: KeptStates) -> None:
        """Keep the state after the last update for branches, if ``kept`` wants it."""
        if self.ranks.first:
            kept.keep(self.ledger.to_saved(), self.model.state_dict(), self.optimizer.state_dict())

    def stop_here(self, reason: Stopped) -> Stopped:
        """Drop the unfinished window, save a state; the exception that says so."""
        self.engine.zero_grad()
        self.settle()
        self.save()
        return Stopped(
            f"stopped after update {self.ledger.update} of {len(self.plan)}: {reason}. The state is saved in "
            f"{self.workspace.folder}; the same command resumes from there"
        )

    # ------------------------------------------------------------------------------------------------- its parts

    def _accumulate(self, window: Window) -> WindowSums:
        """Add the window's gradient to ``.grad``, with smaller micro-batches where memory runs out."""
        context = self.place.autocast()
        while True:
            torch.manual_seed(stream_seed(self.spec.seed, "dropout", window.update, self.ranks.rank))
            pieces = self.ranks.share(list(micro_batches(window, self.ledger.physical_batch_size)))
            try:
                fetching = time.perf_counter()
                batches = [self.data.micro_batch(self.order[a:b], self._scale(window, b - a)) for a, b in pieces]
                self.ledger.data_wait_seconds += time.perf_counter() - fetching
                sums = self.engine.accumulate(batches, context)
                self.ranks.sum_gradients(self.model)
                return WindowSums(self.ranks.sum(sums.loss), self.ranks.sum(sums.correct))
            except torch.OutOfMemoryError as error:
                if self.spec.determinism == "strict":
                    raise UserError(
                        "out of memory: under `determinism: strict` the micro-batch stays the same, because its size "
                        "changes the last digits of a result; lower `physical_batch_size`"
                    ) from error
                if self.spec.tail == "naive" or self.ranks.size > 1:
                    raise
                self.engine.prepare(batches[0], context, "eager")
                self.ledger.physical_batch_size = halved(self.ledger.physical_batch_size, error)

    def _scale(self, window: Window, examples: int) -> float:
        spec = self.spec
        return loss_scale(window, examples, spec.target_batch_size, spec.tail, spec.naive_physical_batch_size)

    def _after_micro_batch(self, position: int, batch: MicroBatch) -> None:
        if self.gauge:
            self.gauge.observe(position, batch)
        if self.ranks.size == 1:  # several ranks stop together, between two updates
            self.stop.check()

    def _write(self, line: HistoryLine) -> None:
        self.workspace.append(line)
        self.observe(line)

    def _give_up(self, update: Launched, loss: float, norm: float) -> None:
        """Save the state before an update that is not finite, and raise UserError with its cause."""
        self.launched.clear()
        self.save()
        culprits = offending_examples(self.model, self.data, update.rows, self.train_tokens)
        raise UserError(
            f"{explain(update.window, loss, norm, update.learning_rate, culprits)}\n"
            f"The history and the state before this update are in {self.workspace.folder}"
        )

    def _resume(self) -> Ledger:
        """Load the saved state into model and optimizer, if there is one."""
        state = self.ranks.same(self.workspace.load() if self.ranks.first else None)
        if state is None:
            return Ledger()
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        ledger = Ledger(**state["ledger"])
        log.info(f"resuming after update {ledger.update}, where an earlier start was interrupted")
        return ledger


def planned_windows(spec: TrainSpec, examples: int) -> list[Window]:
    """All accumulation windows of a run. Raises UserError for a target batch above the ``examples``."""
    try:
        return list(windows(examples, spec.target_batch_size, spec.budget, spec.tail))
    except ValueError as error:
        remedy = "The next start of the workflow leaves it out; to train with it, use more data"
        raise UserError(f"target_batch_sizes: {error}. {remedy}") from None


def describe(epoch: EpochLine) -> str:
    """An epoch's scores in one line for the log."""
    train, validation = epoch["train"], epoch["validation"]
    return (
        f"epoch {epoch['epoch']}: train loss {train['loss']:.4f}, accuracy {train['accuracy']:.4f}; validation loss "
        f"{validation['loss']:.4f}, accuracy {validation['accuracy']:.4f} ({validation['correct']} of "
        f"{validation['examples']})"
    )
