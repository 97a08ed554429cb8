"""Models and data sets of the Hugging Face hub, by revision, from its cache or by download.

With the hub switched off, the cache alone is read. `datasets` by itself would then take whichever revision of a data
set it prepared last.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypedDict

from batchscope.errors import UserError

Kind = Literal["model", "dataset"]
WEIGHTS = ["model.safetensors", "model-*-of-*.safetensors"]
MODEL_FILES = [*WEIGHTS, "*.json", "*.txt", "*.model"]
"""What ``AutoModel`` and ``AutoTokenizer`` read, without copies of the weights for other libraries."""


class _Only(TypedDict):
    """Which files of a repository to take."""

    allow_patterns: list[str] | None
    ignore_patterns: list[str] | None


def snapshot(key: str, kind: Kind, name: str, revision: str, cache: Path | None = None) -> Path:
    """The folder that holds ``name`` at ``revision``: from the cache if that has all of it, downloaded otherwise.

    Where the hub can be reached, a branch is resolved again at each call. ``cache`` is a folder for ``HF_HOME``; the
    environment's if None. Raises UserError, naming the config's ``key``, for what the hub or the cache does not have.
    """
    from huggingface_hub import snapshot_download

    with _explained(key, kind, name, revision, cache):
        folder = snapshot_download(
            name, repo_type=kind, revision=revision, cache_dir=cache_folder(cache), **_files_of(kind)
        )
    return Path(folder)


def missing(key: str, kind: Kind, name: str, revision: str, cache: Path | None = None) -> int:
    """Bytes of ``name`` that the cache lacks, as the hub states them. Raises UserError like ``snapshot``."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    disable_progress_bars()
    with _explained(key, kind, name, revision, cache):
        files = snapshot_download(
            name, repo_type=kind, revision=revision, cache_dir=cache_folder(cache), dry_run=True, **_files_of(kind)
        )
    enable_progress_bars()
    return sum(file.file_size or 0 for file in files if file.will_download)


def cache_folder(cache: Path | None) -> Path:
    """The folder of the snapshots. ``cache`` is a folder for ``HF_HOME``; the environment's if None."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) if cache is None else cache / "hub"


def _files_of(kind: Kind) -> _Only:
    """All files of a data set; of a model those that are read here."""
    if kind == "dataset":
        return {"allow_patterns": None, "ignore_patterns": None}
    return {"allow_patterns": MODEL_FILES, "ignore_patterns": ["*/*"]}


@contextmanager
def _explained(key: str, kind: Kind, name: str, revision: str, cache: Path | None) -> Iterator[None]:
    """Turns an error of the hub's client into a UserError."""
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # whichever httpx the hub's client uses

    try:
        yield
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise UserError(f"{key}: {_explain(error, kind, name, revision, cache)}") from None


def _explain(error: Exception, kind: Kind, name: str, revision: str, cache: Path | None) -> str:
    from huggingface_hub import errors
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

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
