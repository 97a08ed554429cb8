"""Where a run came from: its spec, the hashes of what it read, versions, device, revision."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from batchscope.fingerprint import PACKAGE, file_hash

LIBRARIES = ("batchscope", "torch", "transformers", "tokenizers", "datasets", "safetensors", "numpy")


def provenance(tokens_folder: Path) -> dict[str, Any]:
    """Hashes of the tokens, versions of Python and the libraries, platform, git revision and whether it was dirty."""
    return {
        "tokens": {path.stem: file_hash(path) for path in sorted(tokens_folder.glob("*.arrow"))},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        "platform": platform.platform(),
        "git": _git_state(),
    }


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
