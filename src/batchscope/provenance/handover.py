"""What a training does for the stages after it while it has torch and the libraries in memory.

Starting a process that runs a model takes seconds, mostly for imports; evaluating a small run takes less. So the
training computes the evaluation and the attention of its run ahead and leaves them in ``ready/``, under a fingerprint
of everything they depend on. These stages stay whole: each looks for a result under exactly its own fingerprint,
moves it into place if there is one, and computes otherwise. Finding one needs no torch.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchscope.provenance.fingerprint import canonical_json, content_hash, digest

log = logging.getLogger(__name__)
SECONDS_NEEDED = 300
FILES = {
    "evaluate": ("predictions.parquet", "metrics.json"),
    "attention": ("attention/attention.npz", "attention/measures.json"),
}


@dataclass(frozen=True)
class Request:
    """One result of ``stage`` (``evaluate`` or ``attention``) for one run, and all that it depends on."""

    stage: str
    spec: dict[str, Any]
    code: str
    tokens: Path
    checkpoints: dict[str, Path]
    """The files of ``best`` and, for the evaluation, ``last``."""
    device: str
    threads: int | None
    reviews: Path | None = None

    def inputs(self) -> dict[str, Path]:
        """Every file or folder that the stage reads."""
        if self.stage == "evaluate":
            return self.checkpoints | {name: self.tokens / f"{name}.arrow" for name in ("validation", "test")}
        assert self.reviews is not None
        tokens = {"tokenizer": self.tokens / "tokenizer", "validation": self.tokens / "validation.arrow"}
        return {"best": self.checkpoints["best"], "reviews": self.reviews} | tokens

    def fingerprint(self) -> str:
        """Of spec, code, the content of every input, device and threads: sums of floats depend on these two."""
        content = {name: content_hash(path) for name, path in self.inputs().items()}
        return digest(canonical_json([self.stage, self.spec, self.code, content, self.device, self.threads]))


def requests_ahead(
    ahead: dict[str, Any], tokens: Path, checkpoints: dict[str, Path], device: str, threads: int | None
) -> list[Request]:
    """The requests of ``ahead``: stage → its ``spec``, its ``code`` and, for attention, the path of its ``reviews``."""
    return [
        Request(
            stage=stage,
            spec=wanted["spec"],
            code=wanted["code"],
            tokens=tokens,
            checkpoints=checkpoints,
            device=device,
            threads=threads,
            reviews=Path(wanted["reviews"]) if "reviews" in wanted else None,
        )
        for stage, wanted in ahead.items()
    ]


def collect(request: Request, run_folder: Path, ready: Path) -> bool:
    """Move the result into ``run_folder`` if the training left it in ``ready``; whether it did.

    What else the training left for this stage of this run is out of date then, and removed.
    """
    found = _folders(request.stage, run_folder, ready)
    if not found:
        return False
    wanted = ready / f"{_prefix(request.stage, run_folder)}{request.fingerprint()}"
    complete = wanted in found and all((wanted / name).is_file() for name in FILES[request.stage])
    if complete:
        for name in FILES[request.stage]:
            (run_folder / name).parent.mkdir(parents=True, exist_ok=True)
            (wanted / name).replace(run_folder / name)
        log.info("found ready, made by the training of this run")
    _remove(found)
    return complete


def prepare(requests: list[Request], run_folder: Path, ready: Path, deadline: float | None) -> None:
    """Compute each result into ``ready``; a request without its reviews is passed over.

    Nothing depends on it: it is left out within five minutes of ``deadline`` (seconds since 1970), and what goes wrong
    is one warning.
    """
    for request in requests:
        if deadline is not None and time.time() + SECONDS_NEEDED > deadline:
            log.info(f"no time is left to {request.stage} ahead")
        elif request.stage == "evaluate" or (request.reviews is not None and request.reviews.is_file()):
            try:
                _prepare(request, run_folder, ready)
            except Exception as error:
                log.warning(f"could not {request.stage} ahead, which is left to its own job: {error}")


def _prepare(request: Request, run_folder: Path, ready: Path) -> None:
    began = time.perf_counter()
    _remove(_folders(request.stage, run_folder, ready))
    name = f"{_prefix(request.stage, run_folder)}{request.fingerprint()}"
    with _new_folder(ready / name) as folder:
        _compute(request, folder)
    log.info(f"{request.stage}: done ahead, in {time.perf_counter() - began:.2f} s")


def _compute(request: Request, folder: Path) -> None:
    if request.stage == "evaluate":
        from batchscope.evaluation.evaluate import evaluate

        evaluate(request.spec, request.tokens, request.checkpoints, folder, request.device)
    else:
        from batchscope.insight.attention import attend

        assert request.reviews is not None
        best = request.checkpoints["best"]
        attend(request.spec, request.tokens, request.reviews, best, folder, request.device)


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder under a temporary name, renamed to ``folder`` if all goes well and removed otherwise."""
    temporary = folder.with_name(f".{os.getpid()}.{folder.name}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _prefix(stage: str, run_folder: Path) -> str:
    return f"{stage}-{digest(run_folder.as_posix())}-"


def _folders(stage: str, run_folder: Path, ready: Path) -> list[Path]:
    """What trainings of this run left for this stage, half-written folders of processes that died included."""
    name = f"{_prefix(stage, run_folder)}*"
    return [*ready.glob(name), *ready.glob(f".*.{name}")]


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
