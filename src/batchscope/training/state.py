"""What a run keeps until it is finished: its history, its checkpoints, and states to go on from.

Snakemake deletes the declared outputs of a job that fails, so all this stands in a folder of its own, keyed by a
fingerprint of everything the training depends on. A finished run moves its files to where they are declared.
"""

import io
import json
import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from batchscope.files import atomic, write_json
from batchscope.provenance.fingerprint import file_hash

log = logging.getLogger(__name__)
STATES_KEPT = 2


class Workspace:
    """The folder of one unfinished run. Of several ranks only the one that ``writes`` touches it."""

    def __init__(self, folder: Path, writes: bool = True) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.history_file = folder / "history.jsonl"
        self._history: BinaryIO = io.BytesIO()
        if writes:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self._history = self.history_file.open("ab")

    def append(self, record: dict[str, Any]) -> None:
        """Add a line to the history."""
        self._history.write(json.dumps(record).encode() + b"\n")

    def save(self, update: int, state: dict[str, Any]) -> None:
        """Save ``state`` after ``update``, with the length of the history; the one before it is kept as well.

        A state's file name holds the hash of its content, by which ``load`` knows a damaged one.
        """
        self._history.flush()
        os.fsync(self._history.fileno())
        unnamed = self.folder / "state.unnamed"
        with atomic(unnamed) as temporary:
            torch.save(state | {"history_bytes": self._history.tell()}, temporary)
        unnamed.rename(self.folder / f"state-{update:09d}-{file_hash(unnamed)}.pt")
        for old in self._states()[STATES_KEPT:]:
            old.unlink()

    def load(self) -> dict[str, Any] | None:
        """The newest undamaged state, with the history cut back to it; None to start from the beginning."""
        for path in self._states():
            if path.stem.endswith(file_hash(path)):
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                self._history.truncate(state["history_bytes"])
                return state
            log.warning(f"the saved state {path} is damaged; going back to the one before")
            path.unlink()
        self._history.truncate(0)
        return None

    def keep_checkpoints(self, names: Iterable[str]) -> None:
        """Delete all per-epoch checkpoints but these."""
        for path in self.checkpoints.glob("epoch*.safetensors"):
            if path.name not in names:
                path.unlink()

    def publish(self, run_folder: Path, best: str, facts: dict[str, Any], manifest: dict[str, Any]) -> None:
        """Give the run's folder its checkpoints, ``best`` under two names, its history, facts and manifest,
        which names the hash of each.

        All is copied before the workspace is deleted: a process that dies in between leaves a state from which the
        next one gets here again.
        """
        self._history.close()
        target = run_folder / "checkpoints"
        target.mkdir(parents=True, exist_ok=True)
        for stale in target.glob("*.safetensors"):
            stale.unlink()
        for path in self.checkpoints.glob("*.safetensors"):
            _copy(path, target / path.name)
        _copy(self.checkpoints / best, target / "best.safetensors")
        _copy(self.history_file, run_folder / "history.jsonl")
        write_json(run_folder / "train.json", facts)
        files = ["history.jsonl", "train.json", *(f"checkpoints/{path.name}" for path in target.glob("*.safetensors"))]
        hashes = {name: file_hash(run_folder / name) for name in sorted(files)}
        write_json(run_folder / "manifest.json", manifest | {"files": hashes})
        shutil.rmtree(self.folder)

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob("state-*.pt"), reverse=True)


def _copy(source: Path, target: Path) -> None:
    with atomic(target) as temporary:
        shutil.copyfile(source, temporary)
