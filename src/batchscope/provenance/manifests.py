"""Where tokens and runs came from: spec, the hashes of what was read, versions, device, revision."""

import os
import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from batchscope.data.spec import TokensSpec
from batchscope.files import read_json
from batchscope.model.records import LoadingReport
from batchscope.model.spec import ModelSpec
from batchscope.provenance.code import PACKAGE
from batchscope.provenance.fingerprint import canonical_json, digest, file_hash, without_places
from batchscope.provenance.records import Git, InitialWeights, RunManifest, TokensManifest
from batchscope.training.records import TrainFacts
from batchscope.training.spec import TrainSpec

try:
    import pynvml
except ImportError:
    pynvml = None

LIBRARIES = ("batchscope", "torch", "transformers", "tokenizers", "datasets", "safetensors", "numpy")


def tokens_manifest(spec: TokensSpec, code: str, corpus: Path, split: Path) -> TokensManifest:
    """The manifest of a model's tokens, but for the hashes of its files."""
    identity: dict[str, Any] = {"spec": without_places(spec.plain()), "code": code}
    identity |= {"corpus": file_hash(corpus), "split": file_hash(split)}
    return {
        "spec": identity["spec"],
        "code": code,
        "corpus": identity["corpus"],
        "split": identity["split"],
        "fingerprint": digest(canonical_json(identity)),
    }


def run_fingerprint(spec: TrainSpec, code: str, tokens_folder: Path, hash_of: Callable[[Path], str] = file_hash) -> str:
    """Hash of all that a run's files depend on: spec, code, and the tokens that training and validation read."""
    read = [hash_of(tokens_folder / f"{split}.arrow") for split in ("train", "validation")]
    return digest(canonical_json([without_places(spec.plain()), code, *read]))


def run_manifest(
    spec: TrainSpec,
    code: str,
    fingerprint: str,
    facts: TrainFacts,
    tokens_folder: Path,
    loading: LoadingReport | None = None,
) -> RunManifest:
    """The manifest of a finished run, but for the hashes of its own files.

    ``facts`` is what ``train.json`` holds. ``corpus`` and ``split`` are hashes of the files that the tokens were made
    of, null where the tokens do not say; ``driver`` is the version of NVIDIA's driver where the run was on its GPU;
    ``git`` is null outside a checkout. ``loading`` is the report of a pretrained encoder.
    """
    source = tokens_folder / "manifest.json"
    tokens = read_json(source) if source.is_file() else {}
    return {
        "spec": spec.plain(),
        "code": code,
        "fingerprint": fingerprint,
        "initial_weights": {**_initial_weights(spec.model), **({"loading": loading} if loading else {})},
        "corpus": tokens.get("corpus"),
        "split": tokens.get("split"),
        "tokens": {path.stem: file_hash(path) for path in sorted(tokens_folder.glob("*.arrow"))},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}},
        "platform": platform.platform(),
        "driver": _driver() if facts["device_type"] == "cuda" else None,
        "git": _git_state(),
        "reused_from": None,
        "device": facts["device"],
        "device_type": facts["device_type"],
        "precision": facts["precision"],
        "determinism": facts["determinism"],
        "physical_batch_size": facts["physical_batch_size"],
        "ranks": facts["ranks"],
    }


def _initial_weights(model: ModelSpec) -> InitialWeights:
    """What the training began with: content hash of a folder, commit of a hub id, or the seed's random weights."""
    if model.architecture is not None:
        return {"random": model.architecture}
    assert model.checkpoint is not None
    if model.content is not None:
        return {"checkpoint": model.checkpoint, "content": model.content}
    from huggingface_hub import try_to_load_from_cache

    revision = model.revision or "main"
    cached = try_to_load_from_cache(model.checkpoint, "config.json", revision=revision)
    commit = Path(cached).parent.name if isinstance(cached, str | os.PathLike) else None
    return {"checkpoint": model.checkpoint, "revision": revision, "commit": commit}


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


def _git_state() -> Git | None:
    """Revision of the checkout the package is in; None where there is no git or no checkout."""
    try:
        revision = _git("rev-parse", "HEAD")
        return {"revision": revision, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(PACKAGE), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
