"""How busy the GPUs are and what energy they draw while a run trains, as reported by the driver (NVML).

Both are values of the whole card: other processes on it count too, and so does idling between updates.
"""

import logging
import math
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import torch

from batchscope.hardware.lease import runs_per_gpu
from batchscope.hardware.records import TelemetryFacts, TelemetryTotals

try:
    import pynvml
except ImportError:
    pynvml = None

log = logging.getLogger(__name__)
SECONDS_BETWEEN_SAMPLES = 1.0
NOTHING: TelemetryTotals = {
    "energy_joules": 0.0,
    "utilisation_seconds": 0.0,
    "sampled_seconds": 0.0,
    "utilisation_peak": None,
}
"""Totals before the first start."""


class Telemetry:
    """Samples the devices of a run in a thread of its own, from its construction until it is closed.

    ``device`` is the device of the run, which has ``count`` processes with one CUDA device each. ``earlier`` is what
    ``totals`` returned before the run was interrupted: the sums continue from there. On devices other than NVIDIA's,
    and where the driver reports nothing, every field is None. A failure of the telemetry never stops a run.
    """

    def __init__(self, device: torch.device, count: int, earlier: TelemetryTotals | None) -> None:
        self.earlier = earlier or NOTHING
        self.cards = _cards(device, count)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._sample, name="telemetry", daemon=True)
        if self.cards:
            self.thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the last sample and stop."""
        self.stopping.set()
        if self.cards:
            self.thread.join()

    def totals(self) -> TelemetryTotals:
        """Sums over the devices since the run's first start, to be saved with its state."""
        earlier, cards = self.earlier, self.cards
        peaks = [earlier["utilisation_peak"], *(card.utilisation.peak for card in cards)]
        measured = [peak for peak in peaks if peak is not None]
        return {
            "energy_joules": _added(earlier["energy_joules"], (card.energy_joules() for card in cards)),
            "utilisation_seconds": _added(
                earlier["utilisation_seconds"], (card.utilisation.integral for card in cards)
            ),
            "sampled_seconds": _added(earlier["sampled_seconds"], (card.utilisation.seconds for card in cards)),
            "utilisation_peak": max(measured) if measured else None,
        }

    def facts(self) -> TelemetryFacts:
        """The telemetry's part of ``train.json``."""
        totals = self.totals()
        busy, sampled = totals["utilisation_seconds"], totals["sampled_seconds"]
        mean = busy / sampled if busy is not None and sampled else None
        return {
            "gpu_utilisation_mean": mean,
            "gpu_utilisation_peak": totals["utilisation_peak"] if mean is not None else None,
            "energy_joules": totals["energy_joules"],
            "jobs_per_gpu": runs_per_gpu() if self.cards else None,
        }

    def _sample(self) -> None:
        while True:
            for card in self.cards:
                card.sample(time.monotonic())
            if self.stopping.is_set():
                return
            self.stopping.wait(SECONDS_BETWEEN_SAMPLES)


class Integral:
    """Integral of a sampled quantity over time, by the trapezoid rule; None once a sample is missing."""

    def __init__(self) -> None:
        self.integral: float | None = 0.0
        self.seconds: float | None = 0.0
        self.peak: float | None = None
        self._last: tuple[float, float] | None = None

    def add(self, at: float, value: float | None) -> None:
        """Add a sample taken at ``at`` seconds; a missing ``value`` ends the measurement."""
        if value is None or self.integral is None or self.seconds is None:
            self.integral = self.seconds = self.peak = None
            return
        if self._last is not None:
            elapsed = at - self._last[0]
            self.integral += elapsed * (value + self._last[1]) / 2
            self.seconds += elapsed
        self._last = (at, value)
        self.peak = value if self.peak is None else max(self.peak, value)


class Card:
    """One physical GPU, by its NVML handle."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.utilisation, self.watts = Integral(), Integral()
        self.joules_at_start = self._counter()

    def sample(self, at: float) -> None:
        """Read the utilisation at ``at`` seconds, and the power if the card does not count its energy."""
        rates = _asked(pynvml.nvmlDeviceGetUtilizationRates, self.handle)
        self.utilisation.add(at, None if rates is None else rates.gpu / 100)
        if self.joules_at_start is None:
            milliwatts = _asked(pynvml.nvmlDeviceGetPowerUsage, self.handle)
            self.watts.add(at, None if milliwatts is None else milliwatts / 1000)

    def energy_joules(self) -> float | None:
        """Energy since the start: from the card's own counter (Volta and later), else the integral of its power."""
        if self.joules_at_start is None:
            return self.watts.integral
        now = self._counter()
        return None if now is None else now - self.joules_at_start

    def _counter(self) -> float | None:
        millijoules = _asked(pynvml.nvmlDeviceGetTotalEnergyConsumption, self.handle)
        return None if millijoules is None else millijoules / 1000


def _cards(device: torch.device, count: int) -> list[Card]:
    """The physical cards behind torch's devices; none if one is unknown to the driver, or a slice of a card (MIG)."""
    if pynvml is None or device.type != "cuda":
        return []
    devices = [device] if count == 1 else [torch.device("cuda", number) for number in range(count)]
    try:
        pynvml.nvmlInit()
        handles = [_handle(torch.cuda.get_device_properties(device)) for device in devices]
        if any(_is_sliced(handle) for handle in handles):
            log.info("no telemetry: the driver counts utilisation and energy per card, and this is a slice of one")
            return []
        return [Card(handle) for handle in handles]
    except pynvml.NVMLError as error:
        log.info(f"no telemetry: {error}")
        return []


def _handle(properties: Any) -> Any:
    """NVML's handle of torch's device, by UUID: torch numbers what ``CUDA_VISIBLE_DEVICES`` shows, NVML all cards."""
    return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{str(properties.uuid).removeprefix('GPU-')}")


def _is_sliced(handle: Any) -> bool:
    mode = _asked(pynvml.nvmlDeviceGetMigMode, handle)
    return mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE


def _asked(question: Any, handle: Any) -> Any:
    """The driver's answer; None where the card has none."""
    try:
        return question(handle)
    except pynvml.NVMLError:
        return None


def _added(earlier: float | None, values: Iterable[float | None]) -> float | None:
    """The sum of all; None if one is missing, or if there is no card."""
    found = list(values)
    measured = [value for value in [earlier, *found] if value is not None]
    return math.fsum(measured) if found and len(measured) == len(found) + 1 else None
