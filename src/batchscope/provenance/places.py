"""Where finished and unfinished trainings were computed, and where this machine would compute them.

Precision and kind of device change the last digits of a result and are part of no fingerprint. So a finished run that
differs in them is not taken for another, and a saved state that differs in them is not resumed; a plan says both.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from batchscope.errors import UserError, counted
from batchscope.hardware.place import place_in_words
from batchscope.provenance.jobs import JobFile
from batchscope.provenance.reuse import StoredManifest
from batchscope.provenance.stages import verb_of
from batchscope.training.spec import TrainSpec


class Place(NamedTuple):
    """Precision and kind of device, such as ``bfloat16`` and ``cuda``."""

    precision: str
    device: str

    def __str__(self) -> str:
        return f"{self.precision} on {self.device}"


class Places:
    """What this machine would compute a study's trainings in; asked once, and only where something depends on it."""

    def __init__(self, jobs: JobFile) -> None:
        self.jobs = jobs

    @cached_property
    def here(self) -> Place | None:
        """The place of this machine's trainings; None where it cannot be known, as without torch."""
        training = next((job for job in self.jobs.jobs if verb_of(job) == "train"), None)
        if training is None:
            return None
        try:
            return Place(*place_in_words(self.jobs.settings.device, self.jobs.spec(training, TrainSpec).precision))
        except UserError:
            return None

    def differs(self, place: Place | None) -> bool:
        """Whether a known place is another one than this machine's."""
        return place is not None and self.here is not None and place != self.here

    def of_finished_runs(self, runs: Mapping[str, StoredManifest]) -> Iterator[str]:
        """A sentence for each other place in which runs of the study that stay as they are were trained."""
        found: dict[Place, list[str]] = {}
        for run, manifest in runs.items():
            place = place_of(manifest)
            if place is not None and self.differs(place):
                found.setdefault(place, []).append(run)
        for place, named in found.items():
            was = "run was" if len(named) == 1 else "runs were"
            yield (
                f"{len(named)} finished {was} trained in {place}: {_some(named)}. This machine trains in {self.here}. "
                "Finished runs stay as they are, and the report names runs that differ in this."
            )


def place_of(manifest: StoredManifest) -> Place | None:
    """Where a finished run was trained; None where its manifest does not say."""
    precision, device = manifest.get("precision"), manifest.get("device_type")
    return Place(precision, device) if precision and device else None


def unfinished(state_folder: Path, fingerprint: str) -> dict[Place, int]:
    """Place → last update of the newest saved state of an unfinished training with this fingerprint."""
    found = {}
    for folder in sorted(state_folder.glob(f"{fingerprint}-*-*")):
        _, precision, device = folder.name.split("-", 2)
        numbers = [path.name.split("-")[1] for path in folder.glob("state-*-*.pt")]
        states = [int(number) for number in numbers if number.isdecimal()]
        if states:
            found[Place(precision, device)] = max(states)
    return found


def begun_elsewhere(place: Place, update: int, here: Place) -> str:
    """What a plan says of a saved state that this machine does not resume."""
    return (
        f"begun in {place}, {counted(update, 'update')} done; this machine trains in {here} and would start anew: "
        "resume it where it was begun"
    )


def finished_elsewhere(folder: Path, place: Place, here: Place) -> str:
    """What a plan says of a finished run with the same fingerprint that is not taken."""
    return f"{folder.as_posix()} is the same training in {place}; this machine trains in {here}, so it is not taken"


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4:,} more" if len(names) > 4 else "")
