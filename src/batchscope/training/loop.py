"""Train one run:

    batchscope train --spec JSON --tokens results/demo/tokens/bert --run results/demo/runs/bert/bs64/constant/seed1 …

An update takes one window of exactly the target batch size, micro-batch by micro-batch; an epoch ends with a
validation and a checkpoint. Everything random is a pure function of (seed, purpose, number), so a run that was cut
off goes on from its last saved state as if nothing had happened.
"""

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from batchscope.data.tokens import Tokens, load_tokens
from batchscope.errors import UserError
from batchscope.evaluation.counts import count
from batchscope.evaluation.predict import predict
from batchscope.fingerprint import canonical_json, digest, file_hash
from batchscope.model import TextClassifier, build_model
from batchscope.training.accumulate import ENGINES, DeviceTokens, MicroBatch, WindowSums
from batchscope.training.checkpoint import save_checkpoint
from batchscope.training.device import (
    autocast,
    compute_deterministically,
    device_name,
    peak_memory_bytes,
    pick_device,
    resolve_precision,
)
from batchscope.training.ledger import Ledger, Record, checkpoint_name
from batchscope.training.manifest import provenance
from batchscope.training.memory import fastest_micro_batch, halved
from batchscope.training.noise import noise_gauge
from batchscope.training.policy import schedule_factor
from batchscope.training.progress import ProgressLine
from batchscope.training.ranks import Ranks
from batchscope.training.spec import TrainSpec
from batchscope.training.state import Workspace
from batchscope.training.stop import Stopped, StopRequest
from batchscope.training.telemetry import Telemetry
from batchscope.training.windows import Window, epoch_order, loss_scale, micro_batches, stream_seed, windows

log = logging.getLogger(__name__)


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
    optimizer = _optimizer(spec, model)
    gauge = noise_gauge(model, spec.noise_scale)
    fingerprint = digest(canonical_json(spec.to_dict()) + code + file_hash(tokens_folder / "train.arrow"))
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
                    optimizer.zero_grad()
                    ledger.physical_batch_size = halved(ledger.physical_batch_size, error)

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

        if not ledger.physical_batch_size:
            ledger.physical_batch_size = spec.naive_physical_batch_size or ranks.same(
                _physical_batch_size(settings["physical_batch_size"], plan[0], accumulate, ledger, optimizer, device)
            )
        line = ProgressLine(total=plan[-1].samples, done=ledger.samples, visible=ranks.first)
        order, order_epoch, saved = torch.empty(0), 0, time.perf_counter()
        try:
            for window in plan[ledger.update :]:
                if ranks.same(stop.reason() is not None):
                    raise Stopped(stop.reason() or "another rank was asked to")
                update_started = time.perf_counter()
                if window.epoch != order_epoch:
                    order_epoch = window.epoch
                    order = torch.from_numpy(epoch_order(examples, spec.seed, window.epoch)).to(device)
                learning_rate = _set_learning_rate(optimizer, spec, window.update, len(plan))
                sums = accumulate(window, order)
                grad_norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
                loss, correct, norm = float(sums.loss), int(sums.correct), float(grad_norm)
                if not (math.isfinite(loss) and math.isfinite(norm)):
                    save()
                    culprits = _offending_examples(model, data, order[window.start : window.stop], train_tokens)
                    raise UserError(_explain_non_finite(window, loss, norm, learning_rate, culprits, workspace))
                if "max_grad_norm" in spec.optimizer:
                    limit = spec.optimizer["max_grad_norm"]
                    torch.nn.utils.clip_grads_with_norm_(model.parameters(), limit, grad_norm)
                engine.optimizer.step()
                engine.optimizer.zero_grad()

                record = ledger.count_update(window, loss, correct, learning_rate, norm)
                if gauge:
                    record |= gauge.columns(norm, ranks.sum if ranks.size > 1 else None)
                workspace.append(record)
                observe(record)
                ledger.update_seconds.append(time.perf_counter() - update_started)
                line.advance(window.examples, window.epoch, record["loss"])

                if window.ends_epoch:
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
                if window.ends_epoch or time.perf_counter() - saved >= settings.get("save_every", 600):
                    save()
                    saved = time.perf_counter()
        except Stopped as reason:
            optimizer.zero_grad()
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
        manifest={"spec": spec.to_dict(), "code": code, "fingerprint": fingerprint}
        | {key: facts[key] for key in ("device", "precision", "determinism", "physical_batch_size", "ranks")}
        | provenance(tokens_folder),
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


def _physical_batch_size(
    wanted: int | str,
    window: Window,
    accumulate: Callable[[Window, torch.Tensor], WindowSums],
    ledger: Ledger,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> int:
    """The micro-batch asked for; for ``auto`` the fastest one, measured on the first examples of the first window."""
    if wanted != "auto":
        return int(wanted)
    order = torch.arange(window.examples, device=device)

    def seconds_for(size: int) -> float:
        ledger.physical_batch_size = size
        durations = []
        for _ in range(3):
            trial = time.perf_counter()
            accumulate(dataclasses.replace(window, stop=window.start + size), order)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            durations.append(time.perf_counter() - trial)
            optimizer.zero_grad()
        if ledger.physical_batch_size != size:
            raise torch.OutOfMemoryError
        return min(durations)

    return fastest_micro_batch(seconds_for, window.examples)


def _set_learning_rate(optimizer: torch.optim.Optimizer, spec: TrainSpec, update: int, updates: int) -> float:
    warmup_updates = round(spec.schedule["warmup"] * updates)
    factor = schedule_factor(spec.schedule["name"], update - 1, updates, warmup_updates)
    for group in optimizer.param_groups:
        group["lr"] = spec.learning_rate * factor
    return spec.learning_rate * factor


def _scale(spec: TrainSpec, window: Window, examples: int) -> float:
    return loss_scale(window, examples, spec.target_batch_size, spec.tail, spec.naive_physical_batch_size)


def _offending_examples(model: TextClassifier, data: DeviceTokens, rows: torch.Tensor, tokens: Tokens) -> list[int]:
    """Ids of the reviews whose loss is not finite by itself, without dropout."""
    model.eval()
    found = []
    with torch.no_grad():
        for row in rows:
            batch = data.micro_batch(row[None], 1.0)
            if not bool(cross_entropy(model(batch.input_ids, batch.attention_mask), batch.label).isfinite()):
                found.append(int(tokens.example_id[int(row)]))
    return found


def _explain_non_finite(
    window: Window, loss: float, norm: float, learning_rate: float, culprits: list[int], workspace: Workspace
) -> str:
    what = f"the gradient norm became {norm}" if math.isfinite(loss) else f"the loss became {loss}"
    if not culprits:
        where = "no review of the window has such a loss by itself: the weights or the gradient overflowed"
    elif len(culprits) == window.examples:
        where = f"every review of the window has such a loss: the weights were lost in update {window.update - 1}"
    else:
        listed = ", ".join(map(str, culprits[:10])) + (", …" if len(culprits) > 10 else "")
        where = f"the reviews with such a loss (example_id in data/corpus.parquet): {listed}"
    return (
        f"{what} in update {window.update} at learning rate {learning_rate:g}; {where}.\n"
        "Lower the learning rate of this policy, add `schedule: {warmup: 0.1}` or `optimizer: {max_grad_norm: 1.0}`. "
        f"The history and the state before this update are in {workspace.folder}"
    )


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
