"""Models and data sets of the Hugging Face hub, by revision, in its cache: with the hub off, what is there is enough.

``datasets`` by itself would, with the hub off, take whichever revision of a data set it prepared last.
"""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from batchscope.errors import UserError

Kind = Literal["model", "dataset"]
WEIGHTS = ["model.safetensors", "model-*-of-*.safetensors"]
MODEL_FILES = [*WEIGHTS, "*.json", "*.txt", "*.model"]
"""What ``AutoModel`` and ``AutoTokenizer`` read; of the same weights in other formats and for other libraries, none."""


def snapshot(key: str, kind: Kind, name: str, revision: str, cache: Path | None = None) -> Path:
    """The folder that holds ``name`` at ``revision``: from the cache if that has all of it, downloaded otherwise.

    A branch is looked up anew where the hub can be reached. ``cache`` is a folder for ``HF_HOME``; the environment's if
    None. Raises UserError, naming the config's ``key``, for what is not there or cannot be had.
    """
    folder: str = _ask_the_hub(key, kind, name, revision, cache)
    return Path(folder)


def missing(key: str, kind: Kind, name: str, revision: str, cache: Path | None = None) -> int:
    """Bytes of ``name`` that the cache lacks, as the hub states them. Raises UserError like ``snapshot``."""
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    disable_progress_bars()
    files = _ask_the_hub(key, kind, name, revision, cache, dry_run=True)
    enable_progress_bars()
    return sum(file.file_size or 0 for file in files if file.will_download)


def cache_folder(cache: Path | None) -> Path:
    """Where snapshots are kept."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) if cache is None else cache / "hub"


def _ask_the_hub(key: str, kind: Kind, name: str, revision: str, cache: Path | None, dry_run: bool = False) -> Any:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import httpx

    only: dict[str, Any] = {"allow_patterns": MODEL_FILES, "ignore_patterns": ["*/*"]} if kind == "model" else {}
    try:
        return snapshot_download(
            name, repo_type=kind, revision=revision, cache_dir=cache_folder(cache), dry_run=dry_run, **only
        )
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise UserError(f"{key}: {_explain(error, kind, name, revision, cache)}") from None


def _explain(error: Exception, kind: Kind, name: str, revision: str, cache: Path | None) -> str:
    from huggingface_hub import errors
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.utils import httpx

    causes = list(_causes(error))

    def caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    what = f"the {'model' if kind == 'model' else 'data set'} {name!r}"
    if any(isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in causes):
        return f"the disk of {cache_folder(cache)} is full. Free some space, or name another folder as HF_HOME"
    if caused_by(errors.GatedRepoError):
        return f"{what} is gated: accept its terms at {ENDPOINT}, then `hf auth login` or set HF_TOKEN"
    if caused_by(errors.RepositoryNotFoundError):
        return f"the hub has no public {what.removeprefix('the ')}. Check the name; a private one needs HF_TOKEN"
    if caused_by(errors.RevisionNotFoundError):
        return f"{what} has no revision {revision!r}"
    if caused_by(errors.OfflineModeIsEnabled):
        return (
            f"{what} is not whole at revision {revision!r} in {cache_folder(cache)}, and HF_HUB_OFFLINE keeps the hub "
            "off. Run `batchscope fetch --configfile …` on a machine with a network, with the same HF_HOME"
        )
    if caused_by(httpx.TransportError):
        return (
            f"cannot get {what} at revision {revision!r}: {ENDPOINT} cannot be reached from here. Run `batchscope "
            "fetch --configfile …` on a machine with a network, with the same HF_HOME, or name a local folder"
        )
    return f"cannot get {what} at revision {revision!r}: {str(causes[-1]).strip()}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
