"""Where a model's tokens came from: ``tokens/{model}/manifest.json``."""

from pathlib import Path
from typing import Any

from batchscope.fingerprint import canonical_json, digest, file_hash, without_places


def tokens_manifest(spec: dict[str, Any], code: str, corpus: Path, split: Path) -> dict[str, Any]:
    """Spec, code, the hashes of corpus and split, and the fingerprint of all these."""
    parts = {"spec": without_places(spec), "code": code, "corpus": file_hash(corpus), "split": file_hash(split)}
    return parts | {"fingerprint": digest(canonical_json(parts))}
