"""The files of an unfinished run: its history, its checkpoints, and the states from which it can resume.

Snakemake deletes the declared outputs of a failed job, so these files are in a folder of their own, named by a
fingerprint of everything that the training depends on. A finished run copies them to its declared outputs.
"""

import hashlib
import io
import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NotRequired, TypedDict, cast

import torch

from batchscope.errors import UserError
from batchscope.files import atomic, link, naming_a_full_disk, write_json
from batchscope.hardware.device import Place
from batchscope.model.checkpoint import save_checkpoint
from batchscope.model.classifier import TextClassifier
from batchscope.model.records import CheckpointFacts
from batchscope.provenance.fingerprint import file_hash
from batchscope.provenance.layout import states_of, training_of
from batchscope.provenance.records import RunManifest
from batchscope.training.records import HistoryLine, SavedLedger, TrainFacts

log = logging.getLogger(__name__)
STATES_KEPT = 2


class SavedState(TypedDict):
    """A state from which a run can resume."""

    ledger: SavedLedger
    model: dict[str, torch.Tensor]
    """``state_dict`` of the model."""
    optimizer: dict[str, Any]
    """``state_dict`` of the optimizer."""
    history_bytes: int
    """Length of ``history.jsonl`` when the state was saved."""
    history_hash: NotRequired[str]
    """SHA-256 of ``history.jsonl`` at that time."""
    checkpoints: dict[str, str]
    """Checkpoint of an earlier validation that the run still needs → SHA-256 of the file as it was written."""


def workspace_folder(state_folder: Path, fingerprint: str, place: Place) -> Path:
    """The folder of a run while it is unfinished: of its fingerprint, precision and kind of device.

    A run that began in bfloat16 and went on in float32 would be neither, so each place has states of its own.
    """
    return state_folder / f"{fingerprint}-{place.name}"


class Workspace:
    """The folder of one unfinished run. Of several ranks, only the one that ``writes`` changes it."""

    def __init__(self, folder: Path, writes: bool = True) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.history_file = folder / "history.jsonl"
        self._history: BinaryIO = io.BytesIO()
        self._written = hashlib.sha256()
        """Of the history as it was written; the file itself may have changed on the disk."""
        self._hashes: dict[str, str] = {}
        self._needed_by_states: deque[Iterable[str]] = deque(maxlen=STATES_KEPT)
        if writes:
            for other in states_of(folder.parent, training_of(folder)):
                if other != folder and list(other.glob("state-*.pt")):
                    log.warning(
                        f"an unfinished training of this run in {_place(other)} is in {other}. This job computes in "
                        f"{_place(folder)}, so it starts anew. To resume the other one instead, stop this job and "
                        "start the workflow on a machine like the one it was begun on"
                    )
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self._history = self.history_file.open("ab")

    def append(self, line: HistoryLine) -> None:
        """Add a line to the history."""
        written = json.dumps(line).encode() + b"\n"
        with naming_a_full_disk(self.history_file):
            self._history.write(written)
        self._written.update(written)

    def close(self) -> None:
        """Write what is buffered of the history, and close it: afterwards another start may cut it back."""
        self._history.close()

    def save_checkpoint(self, name: str, model: TextClassifier, facts: CheckpointFacts) -> None:
        """Write a checkpoint and remember its hash: hours may pass before it is published."""
        path = self.checkpoints / name
        save_checkpoint(path, model, facts)
        self._hashes[name] = file_hash(path)

    def save(
        self,
        ledger: SavedLedger,
        model: dict[str, torch.Tensor],
        optimizer: dict[str, Any],
        checkpoints: Iterable[str] = (),
    ) -> None:
        """Save a state after the ledger's last update; the state before it is kept as well.

        ``checkpoints`` are those that the run needs from here on. The others are deleted, but for those that the state
        before needs.
        """
        with naming_a_full_disk(self.history_file):
            self._history.flush()
            os.fsync(self._history.fileno())
        state: SavedState = {
            "ledger": ledger,
            "model": model,
            "optimizer": optimizer,
            "history_bytes": self._history.tell(),
            "history_hash": self._written.hexdigest(),
            "checkpoints": {name: self._hashes[name] for name in checkpoints if name in self._hashes},
        }
        write_state(self.folder, state)
        self._needed_by_states.append(state["checkpoints"])
        self.keep_checkpoints(())
        for old in self._states()[STATES_KEPT:]:
            old.unlink()

    def load(self) -> SavedState | None:
        """The newest undamaged state, with the history cut back to it; None if there is none.

        A state whose part of the history or whose checkpoints are damaged is of no use: the run would be reported with
        other numbers.
        """
        for path in self._states():
            state = read_state(path)
            damaged = path if state is None else self._damaged_part_of(state)
            if state is not None and damaged is None:
                self._history.truncate(state["history_bytes"])
                self._written = hashlib.sha256(self.history_file.read_bytes())
                self._hashes = dict(state["checkpoints"])
                self._needed_by_states.append(state["checkpoints"])
                return state
            log.warning(f"{damaged} is damaged, so the saved state {path} is not used; resuming from the one before")
            path.unlink()
        self._history.truncate(0)
        return None

    def keep_checkpoints(self, names: Iterable[str]) -> None:
        """Delete the validations' checkpoints except these and those that the saved states need."""
        kept = set(names).union(*self._needed_by_states)
        for path in self.checkpoints.glob("epoch*.safetensors"):
            if path.name not in kept:
                path.unlink()

    def check_files(self, checkpoints: Iterable[str]) -> None:
        """Delete the validations' other checkpoints. UserError if one of these or the history is not as written."""
        self._needed_by_states.clear()
        self.keep_checkpoints(checkpoints)
        damaged = self._damaged_checkpoint({name: self._hashes[name] for name in checkpoints})
        if file_hash(self.history_file) != self._written.hexdigest():
            damaged = self.history_file
        if damaged:
            raise UserError(
                f"{damaged} changed on the disk after this training wrote it. Look at the disk, then give the same "
                "command: it trains again from the last state before this change"
            )

    def publish(self, run_folder: Path, best: str, epochs: bool, facts: TrainFacts, manifest: RunManifest) -> None:
        """Write the run's checkpoints, history, facts and manifest to its folder, then delete the workspace.

        ``best`` is the file name of the best checkpoint, which gets a second name; with ``keep: none`` only that one.
        Equal checkpoints share their space on disk. The manifest names the hash of every file. A process that dies
        before the end leaves a state from which the next one gets here again.
        """
        target = run_folder / "checkpoints"
        target.mkdir(parents=True, exist_ok=True)
        for stale in target.glob("*.safetensors"):
            stale.unlink()
        sources = {path.name: path for path in self.checkpoints.glob("*.safetensors")}
        sources["best.safetensors"] = sources[best]
        if not epochs:
            sources = {name: path for name, path in sources.items() if not name.startswith("epoch")}
        first_of: dict[str, Path] = {}
        for name, path in sorted(sources.items()):
            link(first_of.setdefault(self._hashes[path.name], path), target / name)
        _copy(self.history_file, run_folder / "history.jsonl")
        write_json(run_folder / "train.json", facts)
        files = ["history.jsonl", "train.json", *(f"checkpoints/{path.name}" for path in target.glob("*.safetensors"))]
        hashes = {name: file_hash(run_folder / name) for name in sorted(files)}
        write_json(run_folder / "manifest.json", {**manifest, "files": hashes})
        for folder in states_of(self.folder.parent, training_of(self.folder)):
            shutil.rmtree(folder)

    def _damaged_part_of(self, state: SavedState) -> Path | None:
        """The file that is not as it was when the state was saved: the history up to there, or a checkpoint."""
        with self.history_file.open("rb") as file:
            begins = file.read(state["history_bytes"])
        expected = state.get("history_hash")
        if len(begins) == state["history_bytes"] and expected in (None, hashlib.sha256(begins).hexdigest()):
            return self._damaged_checkpoint(state["checkpoints"])
        return self.history_file

    def _damaged_checkpoint(self, hashes: dict[str, str]) -> Path | None:
        """The first of these checkpoints that is lost or has another hash."""
        for name, expected in sorted(hashes.items()):
            path = self.checkpoints / name
            if not path.exists() or file_hash(path) != expected:
                return path
        return None

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob("state-*.pt"), reverse=True)


def write_state(folder: Path, state: SavedState) -> None:
    """Write a state into ``folder``. Its file name holds the hash of its content, by which a damaged one is seen."""
    unnamed = folder / "state.unnamed"
    with atomic(unnamed) as temporary, temporary.open("wb") as file:  # its errors say more than torch's own
        torch.save(state, file)
    unnamed.rename(folder / f"state-{state['ledger']['update']:09d}-{file_hash(unnamed)}.pt")


def read_state(path: Path) -> SavedState | None:
    """A state as ``write_state`` wrote it; None for a damaged file."""
    if not path.stem.endswith(file_hash(path)):
        return None
    return cast(SavedState, torch.load(path, map_location="cpu", weights_only=True))


def _place(folder: Path) -> str:
    """The place of a workspace in words, such as ``bfloat16 on cuda``."""
    return " on ".join(folder.name.split("-")[1:])


def _copy(source: Path, target: Path) -> None:
    with atomic(target) as temporary:
        shutil.copyfile(source, temporary)
