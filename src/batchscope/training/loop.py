"""Train one run:

    batchscope train --spec JSON --tokens results/demo/tokens/bert --run results/demo/runs/bert/bs64/constant/seed1 …

An update takes one window of exactly the target batch size, micro-batch by micro-batch; an epoch ends with a
validation and a checkpoint. Everything random is a pure function of (seed, purpose, number), so a run that was cut
off goes on from its last saved state as if nothing had happened.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from batchscope.data.tokens import load_tokens
from batchscope.errors import UserError
from batchscope.evaluation.counts import count
from batchscope.evaluation.predict import predict
from batchscope.hardware.allocator import keep_freed_memory
from batchscope.hardware.device import (
    autocast,
    compute_deterministically,
    device_name,
    peak_memory_bytes,
    pick_device,
    resolve_precision,
)
from batchscope.hardware.telemetry import Telemetry
from batchscope.model.checkpoint import save_checkpoint
from batchscope.model.classifier import build_model
from batchscope.model.cpu_kernels import use_cpu_kernels
from batchscope.provenance.manifests import run_fingerprint, run_manifest
from batchscope.training.accumulate import ENGINES
from batchscope.training.autotune import choose_micro_step
from batchscope.training.ledger import Ledger, Record, checkpoint_name
from batchscope.training.memory import halved
from batchscope.training.microbatch import DeviceTokens, MicroBatch, WindowSums
from batchscope.training.noise import WindowNorms, noise_columns, noise_gauge
from batchscope.training.nonfinite import explain, offending_examples
from batchscope.training.progress import ProgressLine
from batchscope.training.ranks import Ranks
from batchscope.training.readback import Guard, Reading
from batchscope.training.schedule import schedule_factor
from batchscope.training.spec import TrainSpec
from batchscope.training.state import Workspace
from batchscope.training.stop import Stopped, StopRequest
from batchscope.training.windows import Window, epoch_order, loss_scale, micro_batches, stream_seed, windows

log = logging.getLogger(__name__)


class Launched(NamedTuple):
    """An update that the device was told to do; its numbers are under way."""

    window: Window
    rows: torch.Tensor
    learning_rate: float
    reading: Reading
    noise: WindowNorms | None


def updates_ahead(device: torch.device) -> int:
    """How many updates the host launches before it reads the numbers of an earlier one. A CPU computes at once."""
    return 1 if device.type == "cuda" else 0


def train(
    spec: TrainSpec,
    code: str,
    settings: dict[str, Any],
    tokens_folder: Path,
    run_folder: Path,
    state_folder: Path,
    observe: Callable[[Record], None] = lambda record: None,
    deadline: float | None = None,
    before_publish: Callable[[Path, Path], None] = lambda best, last: None,
) -> None:
    """Train a run; write its history, checkpoints, ``train.json`` and ``manifest.json`` to ``run_folder``.

    ``settings`` holds what the result does not depend on: ``physical_batch_size`` (a number or ``auto``), ``device``
    and ``save_every`` (seconds). ``observe`` sees every line of the history as it is written. Before ``deadline``
    (seconds since 1970), and at SIGTERM and SIGINT, a state is saved and Stopped raised; the next call with the same
    spec and code goes on from there. ``before_publish`` sees the best and the last checkpoint while a state of the
    run still stands. Raises UserError for what the user can mend.
    """
    started = time.perf_counter()
    keep_freed_memory()
    if spec.determinism == "strict":
        compute_deterministically()
    device = pick_device(settings["device"])
    ranks = Ranks(device)
    precision = resolve_precision(spec.precision, device)
    train_tokens, validation_tokens = (load_tokens(tokens_folder / f"{name}.arrow") for name in ("train", "validation"))
    examples = len(train_tokens)
    plan = _plan(spec, examples)

    model = build_model(
        spec.model, len(train_tokens.classes), train_tokens.vocabulary_size, train_tokens.pad_token_id, spec.seed
    )
    model = model.to(device).train()
    if device.type == "cpu":
        use_cpu_kernels(model.encoder)
    optimizer = _optimizer(spec, model)
    guard = Guard(optimizer, device)
    gauge = noise_gauge(model, spec.noise_scale)
    fingerprint = run_fingerprint(spec, code, tokens_folder)
    workspace = Workspace(state_folder / fingerprint, writes=ranks.first)
    ledger = _resume(ranks.same(workspace.load()), model, optimizer)
    started -= ledger.seconds
    data = DeviceTokens(train_tokens, device)

    cards = ranks.size if ranks.first else 0
    with StopRequest(deadline) as stop, Telemetry(device, cards, ledger.telemetry) as telemetry:

        def after_micro_batch(position: int, batch: MicroBatch) -> None:
            if gauge:
                gauge.observe(position, batch)
            if ranks.size == 1:
                stop.check()

        engine = ENGINES[spec.engine](model, optimizer, after_micro_batch)

        def accumulate(window: Window, order: torch.Tensor) -> WindowSums:
            """The window's gradient into ``.grad``, whatever the micro-batches that fit into memory."""
            while True:
                torch.manual_seed(stream_seed(spec.seed, "dropout", window.update, ranks.rank))
                pieces = ranks.share(list(micro_batches(window, ledger.physical_batch_size)))
                try:
                    fetching = time.perf_counter()
                    batches = [data.micro_batch(order[a:b], _scale(spec, window, b - a)) for a, b in pieces]
                    ledger.data_wait_seconds += time.perf_counter() - fetching
                    sums = engine.accumulate(batches, autocast(device, precision))
                    ranks.sum_gradients(model)
                    return WindowSums(ranks.sum(sums.loss), ranks.sum(sums.correct))
                except torch.OutOfMemoryError as error:
                    if spec.tail == "naive" or ranks.size > 1:
                        raise
                    engine.prepare(batches[0], autocast(device, precision), "eager")
                    ledger.physical_batch_size = halved(ledger.physical_batch_size, error)

        launched: deque[Launched] = deque()
        lap = saved = time.perf_counter()

        def launch(window: Window, order: torch.Tensor) -> None:
            """Have the device do one update; nothing here waits for it."""
            learning_rate = _set_learning_rate(optimizer, spec, window.update, len(plan))
            sums = accumulate(window, order)
            grad_norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            noise = gauge.close() if gauge else None
            reading = Reading(sums.loss, sums.correct, grad_norm, *([noise.norms] if noise else []))
            guard.watch(sums.loss, grad_norm)
            if "max_grad_norm" in spec.optimizer:
                limit = spec.optimizer["max_grad_norm"]
                torch.nn.utils.clip_grads_with_norm_(model.parameters(), limit, grad_norm)
            engine.optimizer.step()
            engine.zero_grad()
            launched.append(Launched(window, order[window.start : window.stop], learning_rate, reading, noise))

        def settle(ahead: int = 0) -> None:
            """Write down the updates that were launched, but for the last ``ahead``."""
            nonlocal lap
            while len(launched) > ahead:
                update = launched.popleft()
                loss, correct, norm, *norms = update.reading.values()
                if not (math.isfinite(loss) and math.isfinite(norm)):
                    launched.clear()
                    save()
                    culprits = offending_examples(model, data, update.rows, train_tokens)
                    message = explain(update.window, loss, norm, update.learning_rate, culprits)
                    raise UserError(
                        f"{message}\nThe history and the state before this update are in {workspace.folder}"
                    )
                record = ledger.count_update(update.window, loss, int(correct), update.learning_rate, norm)
                if update.noise:
                    record |= noise_columns(update.noise, norms, norm, ranks.sum if ranks.size > 1 else None)
                workspace.append(record)
                observe(record)
                lap, before = time.perf_counter(), lap
                ledger.update_seconds.append(lap - before)
                line.advance(update.window.examples, update.window.epoch, record["loss"])

        def validate(window: Window) -> None:
            """End an epoch with its validation and its checkpoint."""
            validation_started = time.perf_counter()
            scores: Record = {}
            if ranks.first:
                logits = predict(model, validation_tokens, device, precision)
                scores = count(logits, validation_tokens.label)
            record = ledger.close_epoch(window, ranks.same(scores))
            ledger.validation_seconds += time.perf_counter() - validation_started
            workspace.append(record)
            observe(record)
            if ranks.first:
                save_checkpoint(workspace.checkpoints / checkpoint_name(record), model, record)
            log.info(_describe(record))

        def save() -> None:
            """A state to go on from; the time it takes is what a stop must leave for it."""
            saving = time.perf_counter()
            ledger.seconds, ledger.telemetry = saving - started, telemetry.totals()
            if ranks.first:
                state = {"ledger": ledger.to_dict(), "model": model.state_dict(), "optimizer": optimizer.state_dict()}
                workspace.save(ledger.update, state)
                if spec.keep == "best" and ledger.epochs:
                    workspace.keep_checkpoints({checkpoint_name(ledger.best)})
            stop.reserve = max(stop.reserve, 10 + 3 * (time.perf_counter() - saving))

        line = ProgressLine(total=plan[-1].samples, done=ledger.samples, visible=ranks.first)
        order, order_epoch = torch.empty(0), 0
        lap = saved = time.perf_counter()
        try:
            size = spec.naive_physical_batch_size or settings["physical_batch_size"]
            choose_micro_step(size, plan[0], plan[-1].samples, data, engine, ledger, ranks, autocast(device, precision))
            for window in plan[ledger.update :]:
                if ranks.same(stop.reason() is not None):
                    raise Stopped(stop.reason() or "another rank was asked to")
                if window.epoch != order_epoch:
                    order_epoch = window.epoch
                    order = data.order(epoch_order(examples, spec.seed, window.epoch))
                launch(window, order)
                save_now = window.ends_epoch or time.perf_counter() - saved >= settings.get("save_every", 600)
                settle(ahead=0 if save_now else updates_ahead(device))
                if window.ends_epoch:
                    validate(window)
                if save_now:
                    save()
                    lap = saved = time.perf_counter()
        except Stopped as reason:
            engine.zero_grad()
            settle()
            save()
            raise Stopped(
                f"stopped after update {ledger.update} of {len(plan)}: {reason}. The state is saved in "
                f"{workspace.folder}; the same command goes on from there"
            ) from None
        finally:
            line.close()
            ranks.close()

    if not ranks.first:
        return
    diverged = ledger.epochs[-1]["train"]["loss"] > math.log(len(train_tokens.classes))
    if diverged:
        log.warning("the training loss ended above that of guessing: lower the learning rate of this policy")
    save_checkpoint(workspace.checkpoints / "last.safetensors", model, ledger.epochs[-1])
    facts = {
        "train_examples": examples,
        "diverged": diverged,
        "device": device_name(device),
        "precision": str(precision).removeprefix("torch."),
        "determinism": spec.determinism or "fast",
        "ranks": ranks.size,
        "peak_memory_bytes": peak_memory_bytes(device),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "windows_per_epoch": _windows_of_first_epoch(plan, spec.target_batch_size),
    }
    ledger.seconds = time.perf_counter() - started
    facts = ledger.facts() | telemetry.facts() | facts
    before_publish(workspace.checkpoints / checkpoint_name(ledger.best), workspace.checkpoints / "last.safetensors")
    workspace.publish(
        run_folder,
        best=checkpoint_name(ledger.best),
        facts=facts,
        manifest=run_manifest(spec, code, fingerprint, facts, device.type, tokens_folder),
    )


def _plan(spec: TrainSpec, examples: int) -> list[Window]:
    try:
        return list(windows(examples, spec.target_batch_size, spec.budget, spec.tail))
    except ValueError as error:
        raise UserError(f"target_batch_sizes: {error}; take a smaller batch or more data") from None


def _optimizer(spec: TrainSpec, model: torch.nn.Module) -> torch.optim.Optimizer:
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[spec.optimizer["name"]]
    return kind(
        model.parameters(),
        lr=spec.learning_rate,
        betas=tuple(spec.optimizer["betas"]),
        eps=spec.optimizer["eps"],
        weight_decay=spec.optimizer["weight_decay"],
        fused=True,
    )


def _resume(state: Record | None, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Ledger:
    """Bring model and optimizer to a saved state, if there is one."""
    if state is None:
        return Ledger()
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    ledger = Ledger(**state["ledger"])
    log.info(f"going on after update {ledger.update}, where an earlier start was cut off")
    return ledger


def _set_learning_rate(optimizer: torch.optim.Optimizer, spec: TrainSpec, update: int, updates: int) -> float:
    warmup_updates = round(spec.schedule["warmup"] * updates)
    factor = schedule_factor(spec.schedule["name"], update - 1, updates, warmup_updates)
    for group in optimizer.param_groups:
        group["lr"] = spec.learning_rate * factor
    return spec.learning_rate * factor


def _scale(spec: TrainSpec, window: Window, examples: int) -> float:
    return loss_scale(window, examples, spec.target_batch_size, spec.tail, spec.naive_physical_batch_size)


def _describe(epoch: Record) -> str:
    train, validation = epoch["train"], epoch["validation"]
    return (
        f"epoch {epoch['epoch']}: train loss {train['loss']:.4f}, accuracy {train['accuracy']:.4f}; validation loss "
        f"{validation['loss']:.4f}, accuracy {validation['accuracy']:.4f} ({validation['correct']} of "
        f"{validation['examples']})"
    )


def _windows_of_first_epoch(plan: list[Window], target_batch_size: int) -> dict[str, int]:
    sizes = [window.examples for window in plan if window.epoch == 1]
    full = sizes.count(target_batch_size)
    return {"full": full, "tail": len(sizes) - full, "tail_examples": sizes[-1] % target_batch_size}
