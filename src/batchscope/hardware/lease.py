"""Which GPU a job takes, where nobody else assigns one.

Snakemake counts ``gpu`` but hands out no device: under ``--resources gpu=4`` four jobs would sit on device 0. So a
verb that runs a model leases its device before torch looks for one: an exclusive lock on a file per device, held
while the process lives. The kernel lets go of the lock when the process ends, however it ends.
"""

import fcntl
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
from typing import TextIO

from batchscope.errors import UserError

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

    ``wanted`` is the config's ``device``. Gives the leased names; none, and nothing is touched, where the model
    runs elsewhere, there is no NVIDIA device, SLURM gave the job its own, or a parent process holds the lease.
    Must be entered before CUDA is initialised. ``folder`` of the locks: one per machine and user unless given. Raises
    UserError for more devices than there are, and after ``patience`` seconds in which too few came free.
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
        log.info(f"device {shown} of {', '.join(pool)}")
        held.enter_context(_environment({VISIBLE: shown, LEASED: shown}))
        yield devices


def device_pool() -> list[str]:
    """The devices to lease from, as ``CUDA_VISIBLE_DEVICES`` names them; a name that repeats may be held so often.

    ``BATCHSCOPE_DEVICES`` if set, else ``CUDA_VISIBLE_DEVICES`` if set, else all that the driver lists; each of them
    as often as jobs may share it.
    """
    return _devices() * runs_per_gpu()


def runs_per_gpu() -> int:
    """How many jobs share a GPU: the config's ``runs_per_gpu``, which the workflow hands to all jobs."""
    return int(os.environ.get(SHARED, "1"))


def _devices() -> list[str]:
    if OVERRIDE in os.environ:
        return _names(os.environ[OVERRIDE])
    if VISIBLE in os.environ:
        return list(dict.fromkeys(_names(os.environ[VISIBLE])))
    return _listed_by_driver() or [str(number) for number in range(_device_files())]


def lock_folder() -> Path:
    """The folder of this user's locks on this machine. Raises UserError if somebody else made it.

    Inside a SLURM allocation it is the job's own: SLURM may number the devices of every job from 0.
    """
    job = os.environ.get("SLURM_JOB_ID") if VISIBLE in os.environ and OVERRIDE not in os.environ else None
    folder = Path(tempfile.gettempdir()) / f"batchscope-devices-{os.getuid()}{f'-job{job}' if job else ''}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UserError(f"{folder} is not your own folder, so no device can be leased there; set TMPDIR to another one")
    return folder


def _assigned_by_others(count: int) -> bool:
    """Whether the device is no longer ours to choose: a parent leased it, torchrun or SLURM gave it.

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
    """The devices of a list in the manner of ``CUDA_VISIBLE_DEVICES``: what follows an invalid one does not count."""
    names: list[str] = []
    for part in text.split(","):
        if not re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", part.strip()):
            break
        names.append(part.strip())
    return names


def _listed_by_driver() -> list[str]:
    """UUIDs of all devices. Their numbers would not do: CUDA counts by speed, the driver by place on the bus."""
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
    """Take ``count`` different devices, all or none at a time; their locks are left in ``held``."""
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
                if _lock(file, attempt):
                    devices.append(name)
                else:
                    taken.append(f"{name} by process {_holder(file)}")
                if len(devices) == count:
                    held.push(attempt.pop_all())
                    return devices
        busy, minutes = "; ".join(taken), f"{patience / 60:.0f} minutes"
        if time.monotonic() - started >= patience:
            raise UserError(
                f"fewer than {count} of {len(pool)} devices came free in {minutes} (held: {busy}). Tell Snakemake how "
                f"many there are: `--resources gpu={len(pool)}`. To let two jobs share a device, set "
                "`runs_per_gpu: 2` in the config"
            )
        if not told:
            log.info(f"too few devices are free (held: {busy}); waiting up to {minutes} for {count}")
            told = True
        # Not in step with the others: two that want several devices would keep taking each other's.
        time.sleep(POLL_SECONDS * random.uniform(0.5, 1))


def _lock_file(folder: Path, name: str, slot: int) -> Path:
    return folder / f"{name.replace('/', '_')}{f'.{slot}' if slot else ''}.lock"


def _lock(path: Path, held: ExitStack) -> bool:
    """Take the lock of one device, if it is free. The file stays: another may be about to lock it."""
    file: TextIO = path.open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    held.callback(file.close)
    # Closing would not do where a forked child still has the file open.
    held.callback(fcntl.flock, file, fcntl.LOCK_UN)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return True


def _holder(path: Path) -> str:
    return path.read_text(encoding="ascii").strip() or "unknown"


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
