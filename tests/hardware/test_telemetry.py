"""Telemetry: what is not measured is null, what is measured is of the right card, and a resumed run's sums go on."""

import os
import subprocess
import sys
import threading

import pytest
import torch

from batchscope.hardware.records import TelemetryTotals
from batchscope.hardware.telemetry import Card, Integral, Telemetry
from batchscope.training.ledger import Ledger

CPU = torch.device("cpu")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU with a CUDA build of torch here")
UNKNOWN = dict.fromkeys(("gpu_utilisation_mean", "gpu_utilisation_peak", "energy_joules", "jobs_per_gpu"))


def test_without_nvidia_every_field_is_null_and_no_thread_runs() -> None:
    threads = threading.active_count()
    with Telemetry(CPU, 1, None) as telemetry:
        assert threading.active_count() == threads
    assert telemetry.facts() == UNKNOWN


def test_a_run_measured_in_part_only_is_not_measured() -> None:
    earlier: TelemetryTotals = {
        "energy_joules": 5.0,
        "utilisation_seconds": 1.0,
        "sampled_seconds": 2.0,
        "utilisation_peak": 0.5,
    }
    with Telemetry(CPU, 1, earlier) as telemetry:
        saved = telemetry.totals()
    assert telemetry.facts() == UNKNOWN
    assert Telemetry(CPU, 1, saved).facts() == UNKNOWN


def test_a_rank_that_does_not_write_asks_no_card() -> None:
    assert Telemetry(torch.device("cuda"), 0, None).facts() == UNKNOWN


def test_the_integral_is_the_area_under_the_samples() -> None:
    area = Integral()
    for at, watts in [(10.0, 100.0), (11.0, 300.0), (13.0, 300.0)]:
        area.add(at, watts)
    assert (area.integral, area.seconds, area.peak) == (200.0 + 600.0, 3.0, 300.0)
    area.add(14.0, None)
    area.add(15.0, 100.0)
    assert (area.integral, area.seconds, area.peak) == (None, None, None)


def test_a_saved_ledger_brings_its_telemetry_back() -> None:
    with Telemetry(CPU, 1, None) as telemetry:
        ledger = Ledger(data_wait_seconds=1.5, telemetry=telemetry.totals())
    assert Ledger(**ledger.to_saved()) == ledger


def test_the_jobs_that_share_a_card_are_told(monkeypatch) -> None:
    monkeypatch.setenv("BATCHSCOPE_RUNS_PER_GPU", "10")
    telemetry = Telemetry(CPU, 1, None)
    telemetry.cards = [Card(None)]  # one whose driver has no answers
    telemetry.cards[0].sample(at=0.0)
    assert telemetry.facts() == UNKNOWN | {"jobs_per_gpu": 10}


@NEEDS_GPU
def test_the_card_is_torch_s_whatever_cuda_visible_devices_shows() -> None:
    program = """
import pynvml, torch
from batchscope.hardware.records import TelemetryTotals
from batchscope.hardware.telemetry import Telemetry
card = Telemetry(torch.device("cuda"), 1, None).cards[0]
print(pynvml.nvmlDeviceGetUUID(card.handle), torch.cuda.get_device_properties(0).uuid)
"""
    for number in range(torch.cuda.device_count()):
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": str(number)}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        card, shown = done.stdout.split()
        assert card.removeprefix("GPU-") == shown
