"""Assigns GPUs to jobs where nobody else does.

Snakemake counts ``gpu`` but assigns no device: under ``--resources gpu=4`` four jobs would all use device 0. So a verb
that runs a model leases its device before torch looks for one: an exclusive lock on a file per device, held until the
process ends. The kernel releases the lock however the process ends.
"""

import logging
import os
import random
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from batchscope.errors import UserError
from batchscope.locks import holder, take

log = logging.getLogger(__name__)
PATIENCE_SECONDS = 600.0
POLL_SECONDS = 1.0
VISIBLE, LEASED, OVERRIDE = "CUDA_VISIBLE_DEVICES", "BATCHSCOPE_LEASED", "BATCHSCOPE_DEVICES"
SHARED = "BATCHSCOPE_RUNS_PER_GPU"


@contextmanager
def leased_devices(
    wanted: str = "auto", count: int = 1, folder: Path | None = None, patience: float = PATIENCE_SECONDS
) -> Iterator[list[str]]:
    """Hold ``count`` devices for this process and show torch only these, by ``CUDA_VISIBLE_DEVICES``.

    ``wanted`` is the config's ``device``. Yields the leased names. Yields none and changes nothing if the model runs
    elsewhere, there is no NVIDIA device, SLURM assigned one to the job, or a parent process holds the lease. Enter it
    before CUDA is initialised. ``folder`` holds the locks: by default one folder per machine and user. Raises
    UserError for more devices than there are, and if too few become free within ``patience`` seconds.
    """
    pool = [] if wanted not in ("auto", "cuda") or _assigned_by_others(count) else device_pool()
    if not pool:
        yield []
        return
    if count > len(dict.fromkeys(pool)):
        raise UserError(f"gpus: {count} devices per run, but there are {len(set(pool))} here: {', '.join(pool)}")
    with ExitStack() as held:
        devices = _wait_for(pool, count, folder or lock_folder(), patience, held)
        shown = ",".join(devices)
        jobs = pool.count(devices[0])
        shared = f"; up to {jobs} jobs share it" if jobs > 1 else ""
        log.info(f"device {shown} of {', '.join(dict.fromkeys(pool))}{shared}")
        held.enter_context(_environment({VISIBLE: shown, LEASED: shown}))
        yield devices


def device_pool() -> list[str]:
    """The devices to lease from, as ``CUDA_VISIBLE_DEVICES`` names them, each as often as jobs may share it.

    They are ``BATCHSCOPE_DEVICES`` if set, else ``CUDA_VISIBLE_DEVICES`` if set, else all that the driver lists.
    """
    return _devices() * runs_per_gpu()


def runs_per_gpu() -> int:
    """How many jobs share a GPU: the config's ``runs_per_gpu``, which the workflow passes to all jobs."""
    return int(os.environ.get(SHARED, "1"))


def _devices() -> list[str]:
    if OVERRIDE in os.environ:
        return _names(os.environ[OVERRIDE])
    if VISIBLE in os.environ:
        return list(dict.fromkeys(_names(os.environ[VISIBLE])))
    return _listed_by_driver() or [str(number) for number in range(_device_files())]


def lock_folder() -> Path:
    """The folder of this user's locks on this machine. Raises UserError if another user made it.

    Inside a SLURM allocation each job has its own folder: SLURM may number the devices of every job from 0.
    """
    job = os.environ.get("SLURM_JOB_ID") if VISIBLE in os.environ and OVERRIDE not in os.environ else None
    folder = Path(tempfile.gettempdir()) / f"batchscope-devices-{os.getuid()}{f'-job{job}' if job else ''}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UserError(f"{folder} belongs to another user, so no device can be leased there; set TMPDIR")
    return folder


def _assigned_by_others(count: int) -> bool:
    """Whether the device is assigned already: leased by a parent process, or given by torchrun or SLURM.

    A SLURM allocation that holds more devices than the job wants (a whole node, with Snakemake inside) is a pool.
    """
    if LEASED in os.environ or "LOCAL_RANK" in os.environ:
        return True
    if OVERRIDE in os.environ or "SLURM_JOB_ID" not in os.environ:
        return False
    if VISIBLE in os.environ:
        return len(_names(os.environ[VISIBLE])) <= count
    return any(os.environ.get(name) for name in ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS"))


def _names(text: str) -> list[str]:
    """The devices of a list like ``CUDA_VISIBLE_DEVICES``: names after an invalid one do not count."""
    names: list[str] = []
    for part in text.split(","):
        if not re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", part.strip()):
            break
        names.append(part.strip())
    return names


def _listed_by_driver() -> list[str]:
    """UUIDs of all devices. Numbers are ambiguous: CUDA counts by speed, the driver by place on the bus."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
        return [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _device_files() -> int:
    return sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in Path("/dev").glob("nvidia*"))


def _wait_for(pool: list[str], count: int, folder: Path, patience: float, held: ExitStack) -> list[str]:
    """Take ``count`` different devices, all or none at a time; ``held`` keeps their locks."""
    slots = [(name, pool[:place].count(name)) for place, name in enumerate(pool)]
    order = sorted(slots, key=lambda slot: slot[1])
    started, told = time.monotonic(), False
    while True:
        with ExitStack() as attempt:
            devices, taken = list[str](), list[str]()
            for name, slot in order:
                if name in devices:
                    continue
                file = _lock_file(folder, name, slot)
                if take(file, attempt):
                    devices.append(name)
                else:
                    taken.append(f"{name} by {holder(file)}")
                if len(devices) == count:
                    held.push(attempt.pop_all())
                    return devices
        busy, minutes = "; ".join(taken), f"{patience / 60:.0f} minutes"
        if time.monotonic() - started >= patience:
            raise UserError(
                f"fewer than {count} of {len(pool)} devices became free in {minutes} (held: {busy}). Tell Snakemake "
                f"how many there are: `--resources gpu={len(pool)}`. To let two jobs share a device, set "
                "`runs_per_gpu: 2` in the config"
            )
        if not told:
            log.info(f"too few devices are free (held: {busy}); waiting up to {minutes} for {count}")
            told = True
        # Random: two jobs that want several devices would otherwise keep taking each other's.
        time.sleep(POLL_SECONDS * random.uniform(0.5, 1))


def _lock_file(folder: Path, name: str, slot: int) -> Path:
    return folder / f"{name.replace('/', '_')}{f'.{slot}' if slot else ''}.lock"


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
