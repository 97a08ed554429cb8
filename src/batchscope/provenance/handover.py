"""What a training does for the stages after it while it has torch and the libraries in memory.

Starting a process that runs a model takes seconds, mostly for imports; evaluating a small run takes less. So the
training computes the evaluation and the attention of its run, and after a short training what `insight` measures of
the run as well. It leaves them in ``state/ready/{job}/``, beside their hashes and the fingerprint of everything they
depend on. These stages stay whole: each looks for a result with its own fingerprint, moves it into place if there is
one, and computes otherwise. Finding one needs no torch.
"""

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from batchscope.files import atomic_folder, read_json, write_json
from batchscope.provenance.code import code_hash
from batchscope.provenance.fingerprint import canonical_json, content_hash, digest, file_hash
from batchscope.provenance.jobs import JobFile
from batchscope.provenance.layout import Trained, trained_in
from batchscope.provenance.stages import (
    BEST,
    HISTORY,
    LAST,
    MANIFEST,
    READS,
    STAGES,
    WRITES,
    model_of,
    subject_of,
    verb_of,
)

log = logging.getLogger(__name__)
SECONDS_NEEDED = 300
SHORT = 20
"""A training is short if its process lasts less than so many times as long as its start-up."""
MADE_OF = "made_of.json"
ALWAYS = ("evaluate", "attention")
AFTER_A_SHORT_TRAINING = ("features", "attention_measures", "cartography_measures", "geometry_measures")
FILES = {
    verb: tuple(name.removeprefix("runs/{}/") for name in WRITES[verb]) for verb in ALWAYS + AFTER_A_SHORT_TRAINING
}
"""Stage → its files in the folder of a run."""
Compute = Callable[[str, Path], None]
"""Does a job and writes its files below a folder."""


def collect(jobs: JobFile, job: str, threads: int | None) -> bool:
    """Move the result of ``job`` into its run's folder if the training left exactly that one; whether it did.

    Anything else that a training left for this job is out of date, and is removed.
    """
    ready, run_folder = jobs.layout.ready / job, jobs.layout.run(subject_of(job))
    files = FILES[verb_of(job)]
    found = all((ready / name).is_file() for name in files) and _made_of(ready) == {
        "fingerprint": fingerprint(jobs, job, trained_in(run_folder), threads),
        "files": {name: file_hash(ready / name) for name in files},
    }
    if found:
        for name in files:
            (run_folder / name).parent.mkdir(parents=True, exist_ok=True)
            (ready / name).replace(run_folder / name)
        log.info("the training of this run has computed this already")
    shutil.rmtree(ready, ignore_errors=True)
    return found


def _made_of(ready: Path) -> object:
    """The fingerprint beside a result, and the hashes of its files; None where it cannot be read."""
    try:
        return read_json(ready / MADE_OF)
    except (OSError, ValueError):
        return None


def fingerprint(jobs: JobFile, job: str, trained: Trained, threads: int | None) -> str:
    """Of spec, code, the content of every file that the stage reads, device and threads."""
    content = {name: content_hash(path) for name, path in _inputs(jobs, job, trained).items()}
    return digest(canonical_json([jobs.identity(job), jobs.code(job), content, jobs.settings.device, threads]))


def is_short(started: float) -> Callable[[], bool]:
    """Call it at the end of the start-up of a process that ``started`` then (seconds since 1970). It tells later
    whether the training was short: then the start of a process would be a large part of each later stage.
    """
    start_up = time.time() - started
    return lambda: time.time() - started < SHORT * start_up


def prepare(
    jobs: JobFile,
    run: str,
    trained: Trained,
    threads: int | None,
    compute: Compute,
    short: bool,
    deadline: float | None,
) -> None:
    """Compute what can be had already of the later stages of ``run``, after a ``short`` training all of it.

    Nothing depends on it: it is left out within five minutes of ``deadline`` (seconds since 1970), and what goes wrong
    is one warning.
    """
    for job in (f"{verb}/{run}" for verb in (ALWAYS + AFTER_A_SHORT_TRAINING if short else ALWAYS)):
        if job not in jobs.jobs or not all(path.exists() for path in _inputs(jobs, job, trained).values()):
            continue
        if deadline is not None and time.time() + SECONDS_NEEDED > deadline:
            log.info(f"no time is left for {verb_of(job)} in this job")
            continue
        try:
            _prepare(jobs, job, trained, threads, compute)
        except Exception as error:
            log.warning(f"{verb_of(job)} is left to its own job: {error}")


def _prepare(jobs: JobFile, job: str, trained: Trained, threads: int | None, compute: Compute) -> None:
    began = time.perf_counter()
    ready = jobs.layout.ready / job
    for stale in [ready, *ready.parent.glob(f".*.{ready.name}")]:  # the latter of processes that were killed
        shutil.rmtree(stale, ignore_errors=True)
    with atomic_folder(ready) as folder:
        compute(job, folder)
        # Asked after the imports: a module that was edited while the training ran may be the one that computed this.
        if jobs.code(job) != code_hash(STAGES[verb_of(job)].module):
            raise RuntimeError("its code was edited while the training ran")
        hashes = {name: file_hash(folder / name) for name in FILES[verb_of(job)]}
        write_json(folder / MADE_OF, {"fingerprint": fingerprint(jobs, job, trained, threads), "files": hashes})
    log.info(f"{verb_of(job)}: computed in {time.perf_counter() - began:.2f} s, ready for its own job")


def _inputs(jobs: JobFile, job: str, trained: Trained) -> dict[str, Path]:
    """Every file or folder that the stage reads.

    Not the manifest of the run, which is written last of all and says what the others are made of.
    """
    own = {BEST: trained.best, LAST: trained.last, HISTORY: trained.history}
    folder, model = jobs.layout.study, model_of(job)
    found = {
        name: own[name] if name in own else folder / name.format(model).removesuffix("/*")
        for name in READS[verb_of(job)]
        if name != MANIFEST
    }
    if verb_of(job) == "cartography_measures":
        found |= {f"epoch {epoch}": path for epoch, path in trained.epochs.items()}
    return found
