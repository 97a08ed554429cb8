"""Where tokens and runs came from: spec, the hashes of what was read, versions, device, revision."""

import os
import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from batchscope.files import read_json
from batchscope.provenance.fingerprint import PACKAGE, canonical_json, digest, file_hash, without_places
from batchscope.training.spec import TrainSpec

try:
    import pynvml
except ImportError:
    pynvml = None

LIBRARIES = ("batchscope", "torch", "transformers", "tokenizers", "datasets", "safetensors", "numpy")
DEVICE_FACTS = ("device", "precision", "determinism", "physical_batch_size", "ranks")


def tokens_manifest(spec: dict[str, Any], code: str, corpus: Path, split: Path) -> dict[str, Any]:
    """Spec, code, the hashes of corpus and split, and the fingerprint of all these."""
    parts = {"spec": without_places(spec), "code": code, "corpus": file_hash(corpus), "split": file_hash(split)}
    return parts | {"fingerprint": digest(canonical_json(parts))}


def run_fingerprint(spec: TrainSpec, code: str, tokens_folder: Path, hash_of: Callable[[Path], str] = file_hash) -> str:
    """Hash of all that a run's files depend on: spec, code, and the tokens that training and validation read."""
    read = [hash_of(tokens_folder / f"{split}.arrow") for split in ("train", "validation")]
    return digest(canonical_json([without_places(spec.to_dict()), code, *read]))


def run_manifest(
    spec: TrainSpec, code: str, fingerprint: str, facts: dict[str, Any], device_type: str, tokens_folder: Path
) -> dict[str, Any]:
    """The manifest of a finished run, but for the hashes of its own files.

    ``facts`` is what ``train.json`` holds. ``corpus`` and ``split`` are hashes of the files that the tokens were made
    of, null where the tokens do not say; ``driver`` is the version of NVIDIA's driver where the run was on its GPU;
    ``git`` is null outside a checkout.
    """
    source = tokens_folder / "manifest.json"
    tokens = read_json(source) if source.is_file() else {}
    return {
        "spec": spec.to_dict(),
        "code": code,
        "fingerprint": fingerprint,
        "initial_weights": _initial_weights(spec.model),
        "corpus": tokens.get("corpus"),
        "split": tokens.get("split"),
        "tokens": {path.stem: file_hash(path) for path in sorted(tokens_folder.glob("*.arrow"))},
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES},
        "platform": platform.platform(),
        "driver": _driver() if device_type == "cuda" else None,
        "git": _git_state(),
        "reused_from": None,
    } | {key: facts[key] for key in DEVICE_FACTS}


def _initial_weights(model: dict[str, Any]) -> dict[str, Any]:
    """What the training began with: content hash of a folder, commit of a hub id, or the seed's random weights."""
    if "architecture" in model:
        return {"random": model["architecture"]}
    if "content" in model:
        return {"checkpoint": model["checkpoint"], "content": model["content"]}
    from transformers.utils.hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model["checkpoint"], "config.json", revision=model["revision"])
    commit = Path(cached).parent.name if isinstance(cached, str | os.PathLike) else None
    return {"checkpoint": model["checkpoint"], "revision": model["revision"], "commit": commit}


def _version(library: str) -> str | None:
    """A library's version; None where it is not installed: a stage's own environment holds what it imports."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    """Version of NVIDIA's driver on this machine."""
    if pynvml is None:
        return None
    try:
        pynvml.nvmlInit()
        try:
            return str(pynvml.nvmlSystemGetDriverVersion())
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Revision of the checkout the package is in; None where there is no git or no checkout."""
    try:
        revision = _git("rev-parse", "HEAD")
        return {"revision": revision, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(PACKAGE), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
