"""Small disks and read-only ones, for tests that may mount."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk_at(folder: Path, size: str) -> Iterator[Path]:
    """A disk of ``size``, such as ``8m``, at ``folder``; skips the test where nobody may mount one."""
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a test may have mapped a file


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder read-only, for root too; skips the test where nobody may mount."""
    _mount("--bind", str(folder), str(folder))
    try:
        _mount("-o", "remount,bind,ro", str(folder))
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a test may have mapped a file


def fill(disk: Path) -> Path:
    """Fill a disk to its last byte; the file that does."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (2**16, 1):
            try:
                while file.write(b"0" * size) == size:
                    pass
            except OSError:
                continue
    return ballast


def _mount(*arguments: str) -> None:
    if subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount a disk here")
