"""A device is held by one process at a time, whatever becomes of that process."""

import json
import logging
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from forked import Forked
from jobs import RUN, jobs_of
from small import tiny_config

from batchscope.cli.main import leased
from batchscope.cli.stages import Task
from batchscope.errors import UserError
from batchscope.hardware import lease
from batchscope.hardware.lease import device_pool, leased_devices, lock_folder

WORKER = """
import json, os, random, sys, time

from batchscope.hardware import lease

lease.POLL_SECONDS = 0.02
folder, record, count = lease.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(12):
    with lease.leased_devices("auto", count, folder) as devices:
        start = time.monotonic()
        seen = os.environ["CUDA_VISIBLE_DEVICES"]
        time.sleep(random.uniform(0.005, 0.03))
        line = {"devices": devices, "seen": seen, "start": start, "stop": time.monotonic()}
    with open(record, "a") as file:
        file.write(json.dumps(line) + "\\n")
assert "torch" not in sys.modules
"""
HOLDER = """
import sys, time
from batchscope.hardware import lease

with lease.leased_devices("auto", int(sys.argv[2]), lease.Path(sys.argv[1])) as devices:
    print(*devices, flush=True)
    time.sleep(600)
"""
SLURM = ("SLURM_JOB_ID", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "LOCAL_RANK")


@pytest.fixture(autouse=True)
def two_pretended_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (lease.VISIBLE, lease.LEASED, *SLURM):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(lease.OVERRIDE, "0,1")
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.02)


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def hold(folder: Path, count: int = 1) -> tuple[subprocess.Popen[str], list[str]]:
    """A process that holds a lease, and what it holds."""
    holder = start(HOLDER, folder, count)
    assert holder.stdout is not None
    return holder, holder.stdout.readline().split()


@pytest.mark.parametrize(("devices", "wanted"), [("0,1", [1, 1]), ("0,1", [1] * 4), ("0,1,2", [1, 1, 2, 2])], ids=str)
def test_no_device_is_held_twice_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: str, wanted: list[int]
) -> None:
    monkeypatch.setenv(lease.OVERRIDE, devices)
    record = tmp_path / "record.jsonl"
    workers = [start(WORKER, tmp_path, record, count) for count in wanted]
    assert [worker.stdout and worker.stdout.readline() for worker in workers] == ["ready\n"] * len(wanted)
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=60)
        assert worker.returncode == 0

    leases = [json.loads(line) for line in record.read_text().splitlines()]
    assert len(leases) == 12 * len(wanted)
    assert all(one["seen"] == ",".join(one["devices"]) for one in leases)
    for device in devices.split(","):
        spans = sorted((one["start"], one["stop"]) for one in leases if device in one["devices"])
        assert all(before[1] <= after[0] for before, after in pairwise(spans)), f"device {device} was held twice"
        assert spans, f"device {device} was never held: nothing was shown"
    together = [(one, other) for one in leases for other in leases if other["start"] < one["start"] < other["stop"]]
    assert together, "the processes never held devices at the same time: nothing was shown"


def test_a_killed_holder_s_device_is_free_at_once(tmp_path: Path) -> None:
    first, second = hold(tmp_path), hold(tmp_path)
    try:
        assert sorted(first[1] + second[1]) == ["0", "1"]
        with pytest.raises(UserError, match="came free"), leased_devices(folder=tmp_path, patience=0):
            pass
        first[0].kill()
        first[0].wait()
        with leased_devices(folder=tmp_path, patience=0) as devices:
            assert devices == first[1]
    finally:
        for holder, _ in (first, second):
            holder.kill()
            holder.communicate()


def test_who_waits_is_told_whom_for_and_gets_the_device(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    holder, _ = hold(tmp_path, 2)
    with caplog.at_level("INFO"):
        started = time.monotonic()
        with (
            pytest.raises(UserError, match=r"--resources gpu=2") as refused,
            leased_devices(folder=tmp_path, patience=0.3),
        ):
            pass
    assert 0.3 <= time.monotonic() - started < 5
    assert str(holder.pid) in str(refused.value)
    assert len(caplog.records) == 1, "it says once that it waits"
    assert str(holder.pid) in caplog.text
    holder.kill()
    holder.communicate()
    with leased_devices(folder=tmp_path, patience=0) as devices:
        assert devices == ["0"]


def test_the_environment_is_as_before_when_the_lease_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(os.environ)
    with pytest.raises(ValueError, match="on purpose"), leased_devices(folder=tmp_path) as devices:
        assert os.environ[lease.VISIBLE] == devices[0] == "0"
        raise ValueError("on purpose")
    assert dict(os.environ) == before
    monkeypatch.delenv(lease.OVERRIDE)
    monkeypatch.setenv(lease.VISIBLE, "3,5")
    with leased_devices(folder=tmp_path), leased_devices(folder=tmp_path) as inner:
        assert os.environ[lease.VISIBLE] == "3"
        assert inner == [], "a child process of the holder, such as a rank of torchrun, uses the holder's devices"
    assert os.environ[lease.VISIBLE] == "3,5"


def test_a_device_named_twice_may_be_shared_by_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(lease.OVERRIDE, "0,0")
    holder, devices = hold(tmp_path)
    try:
        assert devices == ["0"]
        with caplog.at_level(logging.INFO), leased_devices(folder=tmp_path, patience=0) as shared:
            assert shared == ["0"]
            assert caplog.messages == ["device 0 of 0; up to 2 jobs share it"]
            with pytest.raises(UserError, match="came free"):
                monkeypatch.delenv(lease.LEASED)
                with leased_devices(folder=tmp_path, patience=0):
                    pass
        with pytest.raises(UserError, match="gpus: 2"), leased_devices(count=2, folder=tmp_path):
            pass
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.parametrize(
    "given",
    [{"CUDA_VISIBLE_DEVICES": "2"}, {"SLURM_JOB_GPUS": "2"}, {"SLURM_STEP_GPUS": "2"}, {"CUDA_VISIBLE_DEVICES": ""}],
    ids=str,
)
def test_what_slurm_assigned_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    monkeypatch.delenv(lease.OVERRIDE)
    for name, value in ({"SLURM_JOB_ID": "7"} | given).items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with leased_devices("cuda", folder=tmp_path) as devices:
        assert devices == []
        assert dict(os.environ) == before
    assert not list(tmp_path.iterdir())


def test_an_allocation_of_several_devices_is_shared_out_within_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snakemake inside a SLURM allocation: two such jobs may both see their devices as 0 and 1."""
    monkeypatch.delenv(lease.OVERRIDE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    outside = lock_folder()
    monkeypatch.setenv("SLURM_JOB_ID", "123456789")
    inside = lock_folder()
    assert inside.name == f"{outside.name}-job123456789"
    try:
        with leased_devices() as first:
            assert first == ["0"]
            assert {path.name for path in inside.iterdir()} == {"0.lock"}
    finally:
        for path in inside.iterdir():
            path.unlink()
        inside.rmdir()


@pytest.mark.parametrize("wanted", ["cpu", "mps"])
def test_without_cuda_nothing_is_touched(tmp_path: Path, wanted: str) -> None:
    before = dict(os.environ)
    with leased_devices(wanted, folder=tmp_path) as devices:
        assert devices == []
        assert dict(os.environ) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles"])
def test_hidden_devices_are_not_leased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.delenv(lease.OVERRIDE)
    monkeypatch.setenv(lease.VISIBLE, value)
    with leased_devices(folder=tmp_path) as devices:
        assert devices == []
        assert os.environ[lease.VISIBLE] == value


def test_the_pool_is_what_the_environment_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lease.VISIBLE, "4, GPU-8f1c2a,-1,5")
    assert device_pool() == ["0", "1"]
    monkeypatch.delenv(lease.OVERRIDE)
    assert device_pool() == ["4", "GPU-8f1c2a"]


def test_a_folder_that_is_not_ours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease.tempfile, "tempdir", str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"batchscope-devices-{os.getuid()}").symlink_to(elsewhere)
    with pytest.raises(UserError, match="TMPDIR"):
        lock_folder()


def test_verbs_that_run_a_model_lease_and_the_others_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease.tempfile, "tempdir", str(tmp_path))
    for job, settings, expected in (
        ("evaluate", {}, "0"),
        ("attention", {}, "0"),
        ("train", {}, "0"),
        ("train", {"gpus": 2}, "0,1"),
        ("evaluate", {"gpus": 2}, "0"),
        ("train", {"device": "cpu"}, None),
        ("evaluate", {"device": "cpu"}, None),
        ("maps", {}, None),
    ):
        jobs = jobs_of(tmp_path, tiny_config(**{"device": "auto"} | settings))
        with leased(Task(jobs.read(), f"{job}/{RUN}", None, None, 0.0)):
            assert os.environ.get(lease.VISIBLE) == expected, (job, settings)


def test_a_device_shared_by_the_config_is_in_the_pool_so_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lease.SHARED, "2")
    assert device_pool() == ["0", "1", "0", "1"]
    with ExitStack() as held:
        taken = []
        for _ in range(4):
            taken += held.enter_context(leased_devices(folder=tmp_path, patience=0))
            monkeypatch.delenv(lease.LEASED)
        assert taken == ["0", "1", "0", "1"], "an idle device comes before a second job on a busy one"
        with pytest.raises(UserError, match="runs_per_gpu"):
            held.enter_context(leased_devices(folder=tmp_path, patience=0))


SNAKEFILE = """
rule all:
    input: expand("{number}.json", number=range(6))

rule job:
    output: "{number}.json"
    resources: gpu=1
    shell: "python job.py {output}"
"""
JOB = """
import json, os, signal, sys, time
from pathlib import Path
from batchscope.hardware.lease import leased_devices

with leased_devices(folder=Path("locks"), patience=0) as devices:
    start = time.monotonic()
    crashed = Path(sys.argv[1]).with_suffix(".crashed")
    if "3" in sys.argv[1] and not crashed.exists():
        crashed.write_text(devices[0])
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.4)
    Path(sys.argv[1]).write_text(json.dumps([devices, start, time.monotonic()]))
"""


def most_at_once(spans: list[tuple[float, float]]) -> int:
    return max(sum(start <= moment < stop for start, stop in spans) for moment, _ in spans)


@pytest.mark.parametrize(("devices", "sharing"), [("0,1", 1), ("0", 2)], ids=["two devices", "one device for two"])
def test_snakemake_s_concurrent_jobs_take_what_is_free_and_a_crash_frees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: str, sharing: int
) -> None:
    """No job waits here: a lease that a killed job left behind would fail the jobs after it."""
    (tmp_path / "locks").mkdir()
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "job.py").write_text(JOB)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv(lease.OVERRIDE, devices)
    monkeypatch.setenv(lease.SHARED, str(sharing))
    words = ["--cores", "4", "--resources", "gpu=2", "--retries", "1", "--quiet", "all"]
    assert Forked("snakemake", words, tmp_path, os.environ).complete().returncode == 0
    assert (tmp_path / "3.crashed").read_text() in devices, "job 3 held a device when it was killed"
    jobs = [json.loads((tmp_path / f"{number}.json").read_text()) for number in range(6)]
    for device in devices.split(","):
        spans = [(start, stop) for held, start, stop in jobs if held == [device]]
        assert spans
        assert most_at_once(spans) <= sharing, f"device {device} was held by too many"
    assert most_at_once([(start, stop) for _, start, stop in jobs]) == 2, "never two at once: nothing was shown"
