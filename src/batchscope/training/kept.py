"""The states of a run that are kept for its branches: under the study's state folder, by the run's fingerprint.

They are no part of the run's files: a run without them is complete, and ``training/branch.py`` replays what is lacking.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from batchscope.errors import UserError
from batchscope.hardware.device import Place
from batchscope.training.records import SavedLedger
from batchscope.training.spec import BranchSpec
from batchscope.training.state import SavedState, read_state, write_state
from batchscope.training.windows import Window, branch_windows, update_at

log = logging.getLogger(__name__)


def kept_folder(state_folder: Path, fingerprint: str, place: Place) -> Path:
    """The folder of a run's kept states: of its fingerprint, precision and kind of device."""
    return state_folder / "branches" / f"{fingerprint}-{place.name}"


class KeptStates:
    """The states of one run after the updates at which it is branched."""

    def __init__(self, folder: Path, plan: Sequence[Window], spec: BranchSpec | None) -> None:
        """``spec`` is None for a run without branches. UserError where one would end after the run's ``plan``."""
        self.folder = folder
        self.updates: dict[int, int] = {}
        for at in reversed(spec.at if spec else ()):
            try:
                update = update_at(plan, at)
                branch_windows(plan, update, spec.samples if spec else 0, 1)
            except ValueError as error:
                raise UserError(
                    f"branch: {spec.samples if spec else 0} samples from {at} on: {error}; choose earlier points "
                    "(`branch.at`), shorter branches (`branch.samples`) or a longer budget"
                ) from None
            self.updates[update] = at

    def keep(self, ledger: SavedLedger, model: dict[str, torch.Tensor], optimizer: dict[str, Any]) -> None:
        """Write the state after the ledger's last update, unless it is there."""
        if self.load(ledger["update"]) is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            state: SavedState = {
                "ledger": ledger,
                "model": model,
                "optimizer": optimizer,
                "history_bytes": 0,
                "checkpoints": {},
            }
            write_state(self.folder, state)

    def load(self, update: int) -> SavedState | None:
        """The state after an update; None where it is lacking. A damaged one is deleted."""
        for path in self.folder.glob(f"state-{update:09d}-*.pt"):
            if (state := read_state(path)) is not None:
                return state
            log.warning(f"the kept state {path} is damaged: it is replayed")
            path.unlink()
        return None
