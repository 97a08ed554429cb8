"""Train one run:

    batchscope train --spec JSON --tokens results/demo/tokens/bert --run results/demo/runs/bert/bs64/constant/seed1 …

An update takes one window of exactly the target batch size, micro-batch by micro-batch; an epoch ends with a
validation and a checkpoint. Everything random is a pure function of (seed, purpose, number), so a run that was cut
off goes on from its last saved state as if nothing had happened.
"""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from batchscope.data.tokens import load_tokens
from batchscope.errors import UserError
from batchscope.evaluation.metrics import measure
from batchscope.evaluation.predict import predict
from batchscope.files import write_json
from batchscope.fingerprint import canonical_json, digest, file_hash
from batchscope.model import build_model
from batchscope.training.accumulate import ENGINES, DeviceTokens
from batchscope.training.checkpoint import save_checkpoint
from batchscope.training.device import autocast, device_name, peak_memory_bytes, pick_device, resolve_precision
from batchscope.training.ledger import Ledger, Record, checkpoint_name
from batchscope.training.manifest import provenance
from batchscope.training.policy import schedule_factor
from batchscope.training.progress import ProgressLine
from batchscope.training.spec import TrainSpec
from batchscope.training.state import Workspace
from batchscope.training.windows import Window, epoch_order, loss_scale, micro_batches, stream_seed, windows

log = logging.getLogger(__name__)
SECONDS_BETWEEN_STATES = 600.0


def train(
    spec: TrainSpec,
    code: str,
    settings: dict[str, Any],
    tokens_folder: Path,
    run_folder: Path,
    state_folder: Path,
    observe: Callable[[Record], None] = lambda record: None,
) -> None:
    """Train a run; write its history, checkpoints, ``train.json`` and ``manifest.json`` to ``run_folder``.

    ``settings`` holds ``physical_batch_size`` and ``device``: what the result does not depend on. ``observe`` sees
    every line of the history as it is written. Raises UserError for what the user can mend.
    """
    started = time.perf_counter()
    device = pick_device(settings["device"])
    precision = resolve_precision(spec.precision, device)
    physical_batch_size = spec.naive_physical_batch_size or settings["physical_batch_size"]
    train_tokens, validation_tokens = (load_tokens(tokens_folder / f"{name}.arrow") for name in ("train", "validation"))
    plan = _plan(spec, len(train_tokens.label))

    model = build_model(
        spec.model, len(train_tokens.classes), train_tokens.vocabulary_size, train_tokens.pad_token_id, spec.seed
    )
    model = model.to(device).train()
    optimizer = _optimizer(spec, model)
    fingerprint = digest(canonical_json(spec.to_dict()) + code + file_hash(tokens_folder / "train.arrow"))
    workspace = Workspace(state_folder / fingerprint)
    ledger = _resume(workspace, model, optimizer)
    started -= ledger.seconds
    saved = time.perf_counter()
    engine = ENGINES[spec.engine](model, optimizer)

    data = DeviceTokens(train_tokens, device)
    order, order_epoch = torch.empty(0), 0
    line = ProgressLine(total=plan[-1].samples, done=ledger.samples)
    for window in plan[ledger.update :]:
        update_started = time.perf_counter()
        if window.epoch != order_epoch:
            order_epoch = window.epoch
            order = torch.from_numpy(epoch_order(len(train_tokens.label), spec.seed, window.epoch)).to(device)
        torch.manual_seed(stream_seed(spec.seed, "dropout", window.update))
        learning_rate = _set_learning_rate(optimizer, spec, window.update, len(plan))

        sums = engine.accumulate(
            [
                data.micro_batch(order[start:stop], _scale(spec, window, stop - start))
                for start, stop in micro_batches(window, physical_batch_size)
            ],
            autocast(device, precision),
        )
        grad_norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        if "max_grad_norm" in spec.optimizer:
            torch.nn.utils.clip_grads_with_norm_(model.parameters(), spec.optimizer["max_grad_norm"], grad_norm)
        engine.optimizer.step()
        engine.optimizer.zero_grad()

        record = ledger.count_update(window, float(sums.loss), int(sums.correct), learning_rate, float(grad_norm))
        _refuse_non_finite(record, workspace)
        workspace.append(record)
        observe(record)
        ledger.update_seconds.append(time.perf_counter() - update_started)
        line.advance(window.examples, window.epoch, record["loss"])

        if window.ends_epoch:
            validation_started = time.perf_counter()
            logits = predict(model, validation_tokens, device, precision)
            record = ledger.close_epoch(window, measure(logits, validation_tokens.label))
            ledger.validation_seconds += time.perf_counter() - validation_started
            workspace.append(record)
            observe(record)
            save_checkpoint(workspace.checkpoints / checkpoint_name(record), model, record)
            log.info(_describe(record))
        if window.ends_epoch or time.perf_counter() - saved > SECONDS_BETWEEN_STATES:
            saved = time.perf_counter()
            ledger.seconds = saved - started
            state = {"ledger": ledger.to_dict(), "model": model.state_dict(), "optimizer": optimizer.state_dict()}
            workspace.save(ledger.update, state)
            if spec.keep == "best" and ledger.epochs:
                workspace.keep_checkpoints({checkpoint_name(ledger.best)})
    line.close()

    save_checkpoint(workspace.checkpoints / "last.safetensors", model, ledger.epochs[-1])
    workspace.publish(run_folder, checkpoint_name(ledger.best))
    ledger.seconds = time.perf_counter() - started
    facts = {
        "train_examples": len(train_tokens.label),
        "device": device_name(device),
        "precision": str(precision).removeprefix("torch."),
        "physical_batch_size": physical_batch_size,
        "peak_memory_bytes": peak_memory_bytes(device),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "windows_per_epoch": _windows_of_first_epoch(plan, spec.target_batch_size),
    }
    write_json(run_folder / "train.json", ledger.facts() | facts)
    write_json(
        run_folder / "manifest.json",
        {"spec": spec.to_dict(), "code": code, "fingerprint": fingerprint, "device": facts["device"]}
        | {"precision": facts["precision"], "physical_batch_size": physical_batch_size}
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


def _resume(workspace: Workspace, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Ledger:
    """Bring model and optimizer to the last saved state, if there is one."""
    state = workspace.load()
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


def _refuse_non_finite(record: Record, workspace: Workspace) -> None:
    if math.isfinite(record["loss"]) and math.isfinite(record["grad_norm"]):
        return
    workspace.flush()
    what = "loss" if not math.isfinite(record["loss"]) else "gradient norm"
    raise UserError(
        f"the {what} became {record[what.replace(' ', '_').replace('gradient', 'grad')]} in update {record['update']} "
        f"at learning rate {record['lr']:g}. Lower the learning rate of this policy, add `schedule: {{warmup: 0.1}}` "
        f"or `optimizer: {{max_grad_norm: 1.0}}`. The history so far is in {workspace.history_file}"
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
