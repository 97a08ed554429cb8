"""How busy the GPUs are and what energy they draw while a run trains, as the driver (NVML) tells it.

Both are those of the whole card: what other processes do there counts too, and so does idling between updates.
"""

import logging
import math
import threading
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import torch

try:
    import pynvml
except ImportError:
    pynvml = None

log = logging.getLogger(__name__)
SECONDS_BETWEEN_SAMPLES = 1.0
Totals = dict[str, float | None]


class Telemetry:
    """Samples the devices of a run in a thread of its own, from its making until it is closed.

    ``device`` is what the run computes on, with ``count`` processes on a CUDA device each. ``earlier`` is what
    ``totals`` gave before the run was cut off: sums go on from there. On other devices than NVIDIA's, and where the
    driver does not tell, every field is None; nothing here ever ends a run.
    """

    def __init__(self, device: torch.device, count: int, earlier: Mapping[str, float | None]) -> None:
        self.earlier = dict(earlier)
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

    def totals(self) -> Totals:
        """Sums since the run's first start, to be saved with its state; None where a start was not measured.

        ``energy_joules``, ``utilisation_seconds`` (the integral of the utilisation, a share) and ``sampled_seconds``
        are sums over the devices, ``utilisation_peak`` is the largest sample.
        """
        before = self.earlier or {"energy_joules": 0.0, "utilisation_seconds": 0.0, "sampled_seconds": 0.0}
        now: Totals = {
            "energy_joules": _sum(card.energy_joules() for card in self.cards) if self.cards else None,
            "utilisation_seconds": _sum(card.utilisation.integral for card in self.cards) if self.cards else None,
            "sampled_seconds": _sum(card.utilisation.seconds for card in self.cards) if self.cards else None,
        }
        peaks = [self.earlier.get("utilisation_peak"), *(card.utilisation.peak for card in self.cards)]
        known = [peak for peak in peaks if peak is not None]
        return {name: _sum([before[name], now[name]]) for name in now} | {
            "utilisation_peak": max(known) if known else None
        }

    def facts(self) -> dict[str, float | None]:
        """What ``train.json`` says: shares from 0 to 1, and joules."""
        totals = self.totals()
        busy, sampled, peak = (totals[name] for name in ("utilisation_seconds", "sampled_seconds", "utilisation_peak"))
        mean = busy / sampled if busy is not None and sampled else None
        return {
            "gpu_utilisation_mean": mean,
            "gpu_utilisation_peak": peak if mean is not None else None,
            "energy_joules": totals["energy_joules"],
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
        """A sample at a time in seconds."""
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
        """Read utilisation, and power if the card does not count its energy."""
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
    """The physical cards behind torch's devices; none if one of them cannot be told, or is a slice of a card (MIG)."""
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


def _sum(values: Iterable[float | None]) -> float | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return math.fsum(known) if len(known) == len(found) else None
