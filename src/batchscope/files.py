"""Writing files so that a reader sees all of one or none of it."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from batchscope.errors import UserError

UMASK = os.umask(0)
os.umask(UMASK)
DEVICES = Path("/dev")
HALF = re.compile("[\ud800-\udfff]")
"""Half a character, as an escape in JSON or YAML can give it: it fits into no UTF-8 file."""


@contextmanager
def naming_a_full_disk(path: Path) -> Iterator[None]:
    """Raise UserError, with the disk and ``path``, where what is written to ``path`` does not fit on its disk."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not _is_of_a_full_disk(error):
            raise
        disk = next(folder for folder in path.absolute().parents if folder.is_dir()).resolve()
        free = shutil.disk_usage(disk).free
        disk = next(folder for folder in [disk, *disk.parents] if folder.is_mount())
        raise UserError(
            f"the disk {disk} is full ({free / 2**20:.1f} MiB free, or your quota is used up): {path} could not be "
            "written. Free some space and start the workflow again: finished work stays, and a training resumes from "
            "its last saved state"
        ) from error


def _is_of_a_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, is that of a full disk; some libraries pass on its text alone."""
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    told = any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT))
    return told or _is_of_a_full_disk(error.__context__)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success flush it to disk and rename it to ``path``.

    After an error the temporary file is removed and ``path`` is as it was; UserError for a full disk, and where
    ``path`` is no file: renaming would put one in the place of ``/dev/null``. The file gets the permissions that a new
    file has here, whatever the library that wrote it thought.
    """
    if path.exists() and (not path.is_file() or path.parent.resolve() == DEVICES):
        raise UserError(f"{path} is a folder, a pipe or a device, where a file is to be written; give another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with naming_a_full_disk(path):
            yield temporary
            temporary.chmod(0o666 & ~UMASK)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """Give a file that never changes a second name; a copy where the file system has no hard links."""
    with atomic(target) as temporary:
        try:
            temporary.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, temporary)


def leads_out(name: str) -> bool:
    """Whether a file's relative name means another place than one below the folder that it is relative to."""
    return PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``folder``; on success rename it to ``folder``, after an error remove it."""
    temporary = folder.with_name(f".{os.getpid()}.{folder.name}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically; ValueError for NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


class DamagedFileError(ValueError):
    """A file of the study that is not what it should be; the message names it and says what to do."""

    def __init__(self, path: Path, error: Exception) -> None:
        words = next(iter(str(error).splitlines()), type(error).__name__)
        super().__init__(f"{path} is damaged ({words}). Delete it and start the workflow again, which makes it anew")


def parse_json(text: str | bytes, made_of: Callable[[list[tuple[str, Any]]], object] | None = None) -> Any:
    """``json.loads``, which answers a text nested too deeply with RecursionError; here that is ValueError as well.

    ``made_of`` makes an object of its names and values, in place of a dict.
    """
    try:
        return json.loads(text, object_pairs_hook=made_of)
    except RecursionError:
        raise ValueError("lists or objects in each other without end") from None


def is_text_by_name(value: object) -> bool:
    """Whether parsed JSON is an object whose values are all text."""
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


def read_json(path: Path) -> Any:
    """Parse a JSON file. Raises DamagedFileError where it is none."""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedFileError(path, error) from None


def read_json_lines(path: Path) -> list[Any]:
    """Parse a file with a JSON value in each line. Raises DamagedFileError where a line is none."""
    try:
        return [parse_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise DamagedFileError(path, error) from None
