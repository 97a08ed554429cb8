"""Train one run: the verb ``batchscope train``.

Each update takes one window of exactly the target batch size, micro-batch by micro-batch. Each epoch ends with a
validation and a checkpoint.
"""

import logging
import math
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch

from batchscope.errors import UserError
from batchscope.hardware.allocator import keep_freed_memory
from batchscope.hardware.device import compute_deterministically, device_name, peak_memory_bytes, pick_place
from batchscope.model.flops import training_flops_per_sample
from batchscope.provenance.layout import Trained, epochs_in
from batchscope.provenance.manifests import run_fingerprint, run_manifest
from batchscope.training.kept import KeptStates, kept_folder
from batchscope.training.ledger import checkpoint_name
from batchscope.training.records import HistoryLine, TrainFacts, WindowCounts
from batchscope.training.run import Run
from batchscope.training.spec import BranchSpec, TrainSettings, TrainSpec
from batchscope.training.state import workspace_folder
from batchscope.training.stop import Stopped
from batchscope.training.windows import Window, validates_after

log = logging.getLogger(__name__)
LAST = "last.safetensors"


def train(
    spec: TrainSpec,
    code: str,
    settings: TrainSettings,
    tokens_folder: Path,
    run_folder: Path,
    state_folder: Path,
    observe: Callable[[HistoryLine], None] = lambda line: None,
    deadline: float | None = None,
    before_publish: Callable[[Trained], None] = lambda trained: None,
    certified: bool = False,
    branches: BranchSpec | None = None,
) -> None:
    """Train a run; write its history, checkpoints, ``train.json`` and ``manifest.json`` to ``run_folder``.

    ``code`` is the hash of the stage's code. ``observe`` sees every line of the history as it is written. Before
    ``deadline`` (seconds since 1970), and at SIGTERM and SIGINT, a state is saved under ``state_folder`` and Stopped
    is raised; the next call with the same spec and code resumes from it, on the same kind of device and in the same
    precision: elsewhere it starts anew. ``before_publish`` gets the files that later stages read, before the saved
    state is deleted. ``certified`` spares the rehearsal of a checkpoint, which the certificate of the model has done.
    The states that ``branches`` begin with are kept under ``state_folder``. Raises UserError for what the user can fix.
    """
    keep_freed_memory()
    if spec.determinism == "strict":
        if settings.physical_batch_size == "auto":
            raise UserError("`determinism: strict` does not time anything: give `physical_batch_size` a number")
        compute_deterministically()
    fingerprint = run_fingerprint(spec, code, tokens_folder)
    place = pick_place(settings.device, spec.precision)
    folder = workspace_folder(state_folder, fingerprint, place)
    run = Run(spec, settings, place, tokens_folder, folder, observe, deadline, certified)
    with run.stop, run.telemetry, closing(run.line), closing(run.ranks), closing(run.workspace):
        train_all_updates(run, KeptStates(kept_folder(state_folder, fingerprint, place), run.plan, branches))
    if not run.ranks.first:
        return
    workspace, ledger = run.workspace, run.ledger
    assert ledger.best is not None
    best, last = (workspace.checkpoints / name for name in (checkpoint_name(ledger.best), LAST))
    workspace.save_checkpoint(LAST, run.model, ledger.epochs[-1])
    workspace.check_files(run.kept_checkpoints())
    facts = facts_of(run)
    before_publish(Trained(best, last, workspace.history_file, epochs_in(workspace.folder)))
    manifest = run_manifest(spec, code, fingerprint, facts, tokens_folder, run.model.loading)
    workspace.publish(run_folder, best.name, spec.keep != "none", facts, manifest)


def train_all_updates(run: Run, kept: KeptStates) -> None:
    """Gradient accumulation: one optimizer step per window, a validation and checkpoint per epoch or more often.

    A resumed run begins with the window after its last saved state. Raises Stopped once the state is saved.
    """
    try:
        run.choose_micro_step()
        for window in run.plan[run.ledger.update :]:
            run.stop_if_asked()
            run.launch(window)
            validate_now = validates_after(window, run.spec.validate_every)
            save_now, keep_now = window.ends_epoch or run.save_is_due(), window.update in kept.updates
            run.settle(ahead=0 if save_now or validate_now or keep_now else updates_ahead(run.device))
            if keep_now:
                run.keep_state(kept)
            if validate_now:
                run.validate(window)
            if save_now:
                run.save()
    except Stopped as reason:
        raise run.stop_here(reason) from None


def updates_ahead(device: torch.device) -> int:
    """How many updates the host launches before it reads the numbers of an earlier one; 0 where nothing is queued."""
    return 1 if device.type == "cuda" else 0


def facts_of(run: Run) -> TrainFacts:
    """``train.json`` of a finished run. Warns if the run ended worse than guessing."""
    diverged = run.ledger.epochs[-1]["train"]["loss"] > math.log(len(run.train_tokens.classes))
    if diverged:
        log.warning("the training loss ended above that of guessing: lower the learning rate of this policy")
    run.ledger.seconds = time.perf_counter() - run.started
    return {
        **run.ledger.facts(),
        **run.telemetry.facts(),
        "train_examples": len(run.train_tokens),
        "diverged": diverged,
        "device": device_name(run.device),
        "device_type": run.device.type,
        "precision": run.place.precision_name,
        "determinism": run.spec.determinism or "fast",
        "ranks": run.ranks.size,
        "peak_memory_bytes": peak_memory_bytes(run.device),
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "training_flops_per_sample": training_flops_per_sample(run.model.encoder, run.train_tokens.input_ids.shape[1]),
        "windows_per_epoch": windows_of_first_epoch(run.plan, run.spec.target_batch_size),
    }


def windows_of_first_epoch(plan: list[Window], target_batch_size: int) -> WindowCounts:
    """Full windows, tail windows and the tail's examples of a run's first epoch."""
    sizes = [window.examples for window in plan if window.epoch == 1]
    full = sizes.count(target_batch_size)
    return {"full": full, "tail": len(sizes) - full, "tail_examples": sizes[-1] % target_batch_size}
