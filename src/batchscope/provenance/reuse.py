"""Finds finished work by its fingerprint: under another name in its study, or in another study.

``results/`` is the store. The manifest of a run, and that of a model's tokens, names the fingerprint of all that the
files depend on, and the hash of every file. A job that finds its fingerprint copies the files instead of making them:
a renamed policy, model or study costs seconds.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from batchscope.files import atomic, is_text_by_name, leads_out, read_json, write_json
from batchscope.provenance.fingerprint import file_hash
from batchscope.provenance.layout import run_files

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
RUNS = tuple(f"*/{pattern}" for pattern in run_files(MANIFEST))
TOKENS = (f"*/tokens/*/{MANIFEST}",)


class StoredManifest(TypedDict):
    """What the manifests of runs and of tokens have in common."""

    spec: dict[str, object]
    fingerprint: str
    files: dict[str, str]
    driver: NotRequired[str | None]
    precision: NotRequired[str]
    device_type: NotRequired[str]
    """These three of a run alone."""


def hashes(folder: Path) -> dict[str, str]:
    """Hash of every file of a folder by its relative name; for a manifest, which is not among them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


def reuse(
    target: Path,
    fingerprint: str,
    results: Path,
    patterns: tuple[str, ...],
    differs: Callable[["StoredManifest"], str | None] = lambda manifest: None,
) -> Path | None:
    """Give ``target`` the files of a finished folder with this fingerprint; that folder, or None if there is none.

    ``patterns`` find manifests under ``results``. A folder whose files are not what its manifest says is passed over,
    and so is one that ``differs`` gives a reason for. Where ``target`` is that folder itself, its files stay. The
    manifest's ``reused_from`` names another one.
    """
    for source, manifest in manifests(results, patterns):
        if manifest["fingerprint"] != fingerprint:
            continue
        if reason := differs(manifest):
            log.warning(f"{source} has the same fingerprint, but {reason}: it is not taken")
            continue
        try:
            for name, expected in manifest["files"].items():
                twins = [source / other for other, digest in manifest["files"].items() if digest == expected]
                _take([source / name, *twins], target / name, expected)
        except (OSError, ValueError) as error:
            log.warning(f"{source} has the same fingerprint, but is not whole: {error}")
            continue
        _clear_out(target, manifest["files"])
        elsewhere = source.resolve() != target.resolve()
        write_json(target / MANIFEST, manifest | ({"reused_from": source.as_posix()} if elsewhere else {}))
        return source
    return None


def manifests(results: Path, patterns: tuple[str, ...]) -> Iterator[tuple[Path, StoredManifest]]:
    """Folder and manifest of all finished work that says what it was made of."""
    for path in sorted(path for pattern in patterns for path in results.glob(pattern)):
        manifest = stored_manifest(path)
        if manifest is not None:
            yield path.parent, manifest


def stored_manifest(path: Path) -> StoredManifest | None:
    """The manifest of finished work; None where there is none that says what it was made of."""
    try:
        manifest = read_json(path)
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or not is_text_by_name(manifest.get("files")):
        return None
    places = [manifest.get(name) for name in ("precision", "device_type", "driver")]
    told = isinstance(manifest.get("fingerprint"), str) and all(isinstance(one, str | None) for one in places)
    told = told and isinstance(manifest.get("spec", {}), dict) and not any(map(leads_out, manifest["files"]))
    return cast(StoredManifest, manifest) if told else None


def _take(sources: list[Path], target: Path, expected: str) -> None:
    """Copy the first whole one of equal files, unless it is the target; either way with the time of now.

    By its time Snakemake knows that the job ran. The best checkpoint, say, has a twin under the name of its epoch.
    """
    problem: Exception = FileNotFoundError(target)
    for source in sources:
        try:
            if source.resolve() == target.resolve():
                _check(source, expected)
                os.utime(source)
                return
            with atomic(target) as temporary:
                shutil.copyfile(source, temporary)
                _check(temporary, expected)
            return
        except (OSError, ValueError) as error:
            problem = error
    raise problem


def _clear_out(folder: Path, names: Iterable[str]) -> None:
    """Delete what an earlier job left beside the files, in the folders that are theirs alone."""
    kept = {folder / name for name in names}
    for inner in {path.parent for path in kept} - {folder}:
        for path in {path for path in inner.iterdir() if path.is_file()} - kept:
            path.unlink()


def _check(path: Path, expected: str) -> None:
    if file_hash(path) != expected:
        raise ValueError(f"{path.name} has another content than when it was made")
