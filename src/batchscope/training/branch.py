"""Branch a run at larger batches: the verb ``batchscope branch`` (Merrill et al. 2025, arXiv 2505.23971).

From a state of a finished run, short trainings continue at k times its batch size with √k times its learning rate, on
the same examples in the same order. Branch k = 1 is the run itself. A state that the training did not keep is replayed:
the run's updates up to there, without validation, which gives the same bits on a CPU.
"""

import logging
import math
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import cast

from batchscope.errors import UserError
from batchscope.files import read_json, read_json_lines, write_json
from batchscope.hardware.allocator import keep_freed_memory
from batchscope.hardware.device import compute_deterministically, device_name, pick_place
from batchscope.provenance.records import RunManifest
from batchscope.training.kept import KeptStates, kept_folder
from batchscope.training.ledger import Ledger
from batchscope.training.progress import ProgressLine
from batchscope.training.records import Branch, BranchesFile, BranchPoint, HistoryLine, TrainFacts, UpdateLine
from batchscope.training.run import Launched, Run
from batchscope.training.spec import BranchSpec, TrainSettings, TrainSpec
from batchscope.training.state import SavedState
from batchscope.training.stop import Stopped
from batchscope.training.windows import branch_windows

log = logging.getLogger(__name__)


class NotFinite(Exception):
    """A loss or a gradient of a branch is not finite."""


class BranchedRun(Run):
    """A run that is put into its earlier states and continued from there. Its lines go nowhere but to ``lines``."""

    lines: list[UpdateLine]

    def restore(self, state: SavedState, spec: TrainSpec) -> None:
        """Continue from ``state`` as ``spec`` says."""
        self.launched.clear()
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ledger = Ledger(**state["ledger"])
        self.spec, self.lines = spec, []
        self.guard.raised.zero_()
        self.engine.zero_grad()

    def _write(self, line: HistoryLine) -> None:
        if line["kind"] == "update":
            self.lines.append(line)

    def _give_up(self, update: Launched, loss: float, norm: float) -> None:
        raise NotFinite


def branch(
    spec: BranchSpec,
    training: TrainSpec,
    code: str,
    settings: TrainSettings,
    tokens_folder: Path,
    run_folder: Path,
    state_folder: Path,
    deadline: float | None = None,
) -> None:
    """Branch a finished run; write ``branches.json`` to ``run_folder``.

    ``training`` is the spec of the run, ``code`` the hash of this stage's code. Before ``deadline`` (seconds since
    1970), and at SIGTERM and SIGINT, Stopped is raised; finished branches and replayed updates are kept under
    ``state_folder``, and the next call resumes from there. Raises UserError for a branch that ends after its run.
    """
    keep_freed_memory()
    if training.determinism == "strict":
        compute_deterministically()
    manifest: RunManifest = read_json(run_folder / "manifest.json")
    facts: TrainFacts = read_json(run_folder / "train.json")
    place = pick_place(settings.device, training.precision)
    if (place.precision_name, place.device.type) != (facts["precision"], facts["device_type"]):
        log.warning(
            f"the run was trained in {facts['precision']} on {facts['device_type']} and is branched in "
            f"{place.precision_name} on {place.device.type}: factor 1 is not the run bit for bit"
        )
    folder = kept_folder(state_folder, manifest["fingerprint"], place)
    replay, done = folder / "replay", folder / "done" / code
    for inner in (replay, done):
        inner.mkdir(parents=True, exist_ok=True)
    own = settings.model_copy(update={"physical_batch_size": facts["physical_batch_size"], "gpus": 1})
    run = BranchedRun(training, own, place, tokens_folder, replay, lambda line: None, deadline)
    with run.stop, run.telemetry, closing(run.line), closing(run.ranks), closing(run.workspace):
        kept = KeptStates(folder, run.plan, spec)
        run.ledger.physical_batch_size, run.ledger.trial = facts["physical_batch_size"], facts["trial"]
        run.choose_micro_step()
        history = updates_of(run_folder / "history.jsonl")
        replayed = replay_lacking(run, kept, history)
        points = [_point(run, kept, spec, update, history, done, update in replayed) for update in sorted(kept.updates)]
    file: BranchesFile = {
        "training": manifest["fingerprint"],
        "device": device_name(place.device),
        "precision": place.precision_name,
        "physical_batch_size": run.ledger.physical_batch_size,
        "points": points,
    }
    write_json(run_folder / "branches.json", file)
    for inner in (replay, folder / "done"):
        shutil.rmtree(inner)


def updates_of(history: Path) -> dict[int, UpdateLine]:
    """Number of an update → its line in a run's history."""
    lines: list[HistoryLine] = read_json_lines(history)
    return {line["update"]: line for line in lines if line["kind"] == "update"}


def replay_lacking(run: BranchedRun, kept: KeptStates, history: dict[int, UpdateLine]) -> set[int]:
    """Replay the run's updates up to every state that ``kept`` lacks, and keep it; the numbers of these updates.

    Begins with the nearest state before each. Warns where an update is not that of ``history`` bit for bit.
    """
    training, nearest = run.spec, None
    lacking = [update for update in sorted(kept.updates) if kept.load(update) is None]
    if lacking and lacking[0] < run.ledger.update:
        shutil.rmtree(run.workspace.folder)
        raise UserError("a kept state was lost while later ones were replayed: start the workflow again to replay it")
    for update in sorted(kept.updates):
        if update not in lacking:
            nearest = update
            continue
        if nearest is not None and nearest > run.ledger.update:
            run.restore(cast(SavedState, kept.load(nearest)), training)
        log.info(f"the state after update {update} was not kept: replaying from update {run.ledger.update}")
        run.lines = []
        _replay(run, update)
        run.keep_state(kept)
        if not _are_of_the_run(run.lines, history):
            log.warning("the replayed updates are not those of the run bit for bit: this device rounds differently")
    return set(lacking)


def _are_of_the_run(lines: Sequence[UpdateLine], history: dict[int, UpdateLine]) -> bool:
    """Whether updates are those of a run's history, to the last bit."""
    return all(dict(line) == dict(history[line["update"]]) for line in lines)


def _replay(run: BranchedRun, until: int) -> None:
    """The run's own updates, with states saved as in a training."""
    try:
        for window in run.plan[run.ledger.update : until]:
            run.stop_if_asked()
            run.launch(window)
            run.settle()
            if run.save_is_due():
                run.save()
    except Stopped as reason:
        raise run.stop_here(reason) from None
    except NotFinite:
        raise UserError("the replayed run is not finite where the run itself was: it cannot be branched here") from None


def _point(
    run: BranchedRun,
    kept: KeptStates,
    spec: BranchSpec,
    update: int,
    history: dict[int, UpdateLine],
    done: Path,
    replayed: bool,
) -> BranchPoint:
    """All branches of one point; those that an earlier call finished are read from ``done``."""
    training, branches = run.spec, []
    for factor in spec.factors:
        path = done / f"{update}-{spec.samples}-{factor}.json"
        if not path.exists():
            state = kept.load(update)
            assert state is not None
            write_json(path, follow(run, state, training, spec.samples, factor, history))
            run.spec = training
        branches.append(cast(Branch, read_json(path)))
    samples = run.plan[update - 1].samples if update else 0
    at = kept.updates[update]
    return {
        "at": at,
        "update": update,
        "samples": samples,
        "state": "replayed" if replayed else "kept",
        "branches": branches,
    }


def branched_spec(training: TrainSpec, factor: int) -> TrainSpec:
    """The spec of a branch: ``factor`` × the batch size, √factor × the learning rate (Malladi et al. 2022, arXiv
    2205.10287, its learning-rate part); Adam's decays and moments stay."""
    changes = {
        "target_batch_size": factor * training.target_batch_size,
        "learning_rate": math.sqrt(factor) * training.learning_rate,
    }
    return training.model_copy(update=changes)


def follow(
    run: BranchedRun,
    state: SavedState,
    training: TrainSpec,
    samples: int,
    factor: int,
    history: dict[int, UpdateLine],
) -> Branch:
    """One branch of ``samples`` examples from ``state``; leaves the model as it ends. Raises Stopped."""
    spec = branched_spec(training, factor)
    run.restore(state, spec)
    windows = branch_windows(run.plan, run.ledger.update, samples, factor)
    log.info(f"branch at {run.ledger.samples} samples, {factor} × the batch size: {len(windows)} updates")
    diverged = False
    try:
        with closing(ProgressLine(samples)) as run.line:
            for window in windows:
                run.stop_if_asked()
                run.launch(window)
                run.settle()
    except NotFinite:
        log.warning(f"the branch of {factor} × the batch size diverged after {len(run.lines)} updates")
        run.engine.zero_grad()
        diverged = True
    return {
        "factor": factor,
        "target_batch_size": spec.target_batch_size,
        "diverged": diverged,
        "equals_run": _are_of_the_run(run.lines, history) if factor == 1 else None,
        "updates": [
            {
                "samples": line["samples"],
                "examples": line["examples"],
                "correct": line["correct"],
                "accuracy": line["accuracy"],
                "loss": line["loss"],
                "lr": line["lr"],
                "grad_norm": line["grad_norm"],
            }
            for line in run.lines
        ],
    }
