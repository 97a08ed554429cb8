"""What telemetry writes down: sums in a run's saved state, and shares and joules in ``train.json``."""

from typing import TypedDict


class TelemetryTotals(TypedDict):
    """Sums over a run's devices since its first start. A value is None where a part of the run was not measured."""

    energy_joules: float | None
    utilisation_seconds: float | None
    """Integral of the utilisation (a share from 0 to 1) over time."""
    sampled_seconds: float | None
    """Seconds between the first and the last sample."""
    utilisation_peak: float | None
    """Largest sample of the utilisation, a share from 0 to 1."""


class TelemetryFacts(TypedDict):
    """How busy a run's devices were and what energy they drew. None where NVIDIA's driver does not tell."""

    gpu_utilisation_mean: float | None
    """Share of the time in which a kernel ran, from 0 to 1."""
    gpu_utilisation_peak: float | None
    """Largest sampled share, from 0 to 1."""
    energy_joules: float | None
    """Energy of the whole cards, idle draw and the work of other jobs included."""
    jobs_per_gpu: int | None
    """How many jobs might share a card at a time (``runs_per_gpu``): utilisation and energy count them all."""
