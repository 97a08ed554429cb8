"""What a run keeps until it is finished: its history, its checkpoints, and states to go on from.

Snakemake deletes the declared outputs of a job that fails, so all this stands in a folder of its own, keyed by a
fingerprint of everything the training depends on. A finished run moves its files to where they are declared.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from batchscope.files import atomic
from batchscope.fingerprint import file_hash

log = logging.getLogger(__name__)
STATES_KEPT = 2


class Workspace:
    """The folder of one unfinished run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self.history_file = folder / "history.jsonl"
        self._history = self.history_file.open("ab")

    def append(self, record: dict[str, Any]) -> None:
        """Add a line to the history."""
        self._history.write(json.dumps(record).encode() + b"\n")

    def flush(self) -> None:
        """Bring the history to the disk."""
        self._history.flush()
        os.fsync(self._history.fileno())

    def save(self, update: int, state: dict[str, Any]) -> None:
        """Save ``state`` after ``update``, with the length of the history; the one before it is kept as well.

        A state's file name holds the hash of its content, by which ``load`` knows a damaged one.
        """
        self.flush()
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

    def publish(self, run_folder: Path, best: str) -> None:
        """Move history and checkpoints to the run's folder, ``best`` under two names, and delete the workspace."""
        self._history.close()
        target = run_folder / "checkpoints"
        target.mkdir(parents=True, exist_ok=True)
        for stale in target.glob("*.safetensors"):
            stale.unlink()
        shutil.copyfile(self.checkpoints / best, self.checkpoints / "best.safetensors")
        for path in self.checkpoints.glob("*.safetensors"):
            shutil.move(path, target / path.name)
        shutil.move(self.history_file, run_folder / "history.jsonl")
        shutil.rmtree(self.folder)

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob("state-*.pt"), reverse=True)
