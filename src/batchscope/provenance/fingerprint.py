"""Short strings for what a result depends on: canonical JSON, the hash of a text, the hash of files. Pure Python."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from batchscope.errors import UserError
from batchscope.files import write_text

PLACES = ("source", "checkpoint")
PARTS = ("model", "label_review", "corpus")
"""Keys of a spec that may hold a spec with places of its own."""


def canonical_json(value: object) -> str:
    """One text for one meaning: sorted keys, no spaces, ``5.0e-5`` and ``0.00005`` alike.

    Raises ValueError for NaN and infinity, which JSON cannot say.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def without_places(spec: Mapping[str, object]) -> dict[str, object]:
    """The spec without the paths of what it names by content: reviews or weights may lie anywhere."""
    # The tracker's spec has a model's name under `model`.
    parts = {key: without_places(part) for key in PARTS if isinstance(part := spec.get(key), dict)}
    return {key: parts.get(key, spec[key]) for key in spec if "content" not in spec or key not in PLACES}


def digest(text: str) -> str:
    """The first 16 hexadecimal digits of SHA-256: 64 bits, enough to tell the runs of a study apart."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


# ------------------------------------------------------------------------------------------------- content


def file_hash(path: Path) -> str:
    """SHA-256 of one file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(
    path: Path, memory: Path | None = None, files: Sequence[Path] | None = None, names: Sequence[str] = ()
) -> str:
    """Hash of the content of a file, or of a folder's files with their relative names; times do not count.

    ``files`` are those of the folder that count; all of them if it is None. ``names`` count as they are: those of
    files whose content does not.
    ``memory`` is a JSON file that remembers hashes by each file's size, inode, modification and change time, so
    that an unchanged gigabyte is read once and not at every start of the workflow. Raises UserError for a file that
    cannot be read.
    """
    remembered = _read_memory(memory)
    known = dict(remembered)
    lines = []
    if files is None:
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        try:
            status = file.stat()
            key = f"{file.resolve()}|{status.st_size}|{status.st_ino}|{status.st_mtime_ns}|{status.st_ctime_ns}"
            if key not in known:
                known[key] = file_hash(file)
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror}") from None
        lines.append(f"{file.relative_to(path) if file != path else file.suffix} {known[key]}")
    if memory is not None and known != remembered:
        with suppress(OSError, UserError):  # on results that are read-only; without it the next start takes longer
            write_text(memory, json.dumps(known))
    return digest("\n".join([*lines, *names]))


def _read_memory(memory: Path | None) -> dict[str, str]:
    try:
        remembered = json.loads(memory.read_text(encoding="utf-8")) if memory is not None else {}
    except (OSError, ValueError):
        return {}
    return remembered if isinstance(remembered, dict) else {}
