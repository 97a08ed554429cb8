"""What a training does for the stages after it while it has torch and the libraries in memory.

Starting a process that runs a model takes seconds, mostly for imports; evaluating a small run takes less. So the
training computes the evaluation and the attention of its run and leaves them in ``state/ready/{job}/``, beside their
hashes and the fingerprint of everything they depend on. These stages stay whole: each looks for a result with its own
fingerprint, moves it into place if there is one, and computes otherwise. Finding one needs no torch.
"""

import logging
import shutil
import time
from pathlib import Path

from batchscope.files import atomic_folder, read_json, write_json
from batchscope.provenance.code import code_hash
from batchscope.provenance.fingerprint import canonical_json, content_hash, digest, file_hash
from batchscope.provenance.jobs import JobFile
from batchscope.provenance.layout import checkpoints_of
from batchscope.provenance.stages import STAGES, model_of, subject_of, verb_of

log = logging.getLogger(__name__)
SECONDS_NEEDED = 300
MADE_OF = "made_of.json"
FILES = {
    "evaluate": ("predictions.parquet", "metrics.json"),
    "attention": ("attention/attention.npz", "attention/measures.json"),
}


def collect(jobs: JobFile, job: str, threads: int | None) -> bool:
    """Move the result of ``job`` into its run's folder if the training left exactly that one; whether it did.

    Anything else that a training left for this job is out of date, and is removed.
    """
    ready, run_folder = jobs.layout.ready / job, jobs.layout.run(subject_of(job))
    files = FILES[verb_of(job)]
    found = all((ready / name).is_file() for name in files) and _made_of(ready) == {
        "fingerprint": fingerprint(jobs, job, checkpoints_of(run_folder), threads),
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


def fingerprint(jobs: JobFile, job: str, checkpoints: dict[str, Path], threads: int | None) -> str:
    """Of spec, code, the content of every file that the stage reads, device and threads."""
    content = {name: content_hash(path) for name, path in _inputs(jobs, job, checkpoints).items()}
    return digest(canonical_json([jobs.identity(job), jobs.code(job), content, jobs.settings.device, threads]))


def prepare(jobs: JobFile, run: str, checkpoints: dict[str, Path], threads: int | None, deadline: float | None) -> None:
    """Compute evaluation and, where the reviews are chosen, attention of ``run`` from its training's checkpoints.

    Nothing depends on it: it is left out within five minutes of ``deadline`` (seconds since 1970), and what goes wrong
    is one warning.
    """
    for stage in FILES:
        job = f"{stage}/{run}"
        if deadline is not None and time.time() + SECONDS_NEEDED > deadline:
            log.info(f"no time is left for {stage} in this job")
        elif stage == "evaluate" or jobs.layout.reviews.is_file():
            try:
                _prepare(jobs, job, checkpoints, threads)
            except Exception as error:
                log.warning(f"{stage} is left to its own job: {error}")


def _prepare(jobs: JobFile, job: str, checkpoints: dict[str, Path], threads: int | None) -> None:
    began = time.perf_counter()
    ready = jobs.layout.ready / job
    for stale in [ready, *ready.parent.glob(f".*.{ready.name}")]:  # the latter of processes that were killed
        shutil.rmtree(stale, ignore_errors=True)
    with atomic_folder(ready) as folder:
        _compute(jobs, job, checkpoints, folder)
        # Asked after the imports: a module that was edited while the training ran may be the one that computed this.
        if jobs.code(job) != code_hash(STAGES[verb_of(job)].module):
            raise RuntimeError("its code was edited while the training ran")
        hashes = {name: file_hash(folder / name) for name in FILES[verb_of(job)]}
        write_json(folder / MADE_OF, {"fingerprint": fingerprint(jobs, job, checkpoints, threads), "files": hashes})
    log.info(f"{verb_of(job)}: computed in {time.perf_counter() - began:.2f} s, ready for its own job")


def _compute(jobs: JobFile, job: str, checkpoints: dict[str, Path], folder: Path) -> None:
    tokens, device = jobs.layout.tokens(model_of(job)), jobs.settings.device
    if verb_of(job) == "evaluate":
        from batchscope.evaluation.evaluate import evaluate
        from batchscope.evaluation.spec import EvaluationSpec

        evaluate(jobs.spec(job, EvaluationSpec), tokens, checkpoints, folder, device)
    else:
        from batchscope.insight.attention import attend
        from batchscope.insight.spec import AttentionSpec

        attend(jobs.spec(job, AttentionSpec), tokens, jobs.layout.reviews, checkpoints["best"], folder, device)


def _inputs(jobs: JobFile, job: str, checkpoints: dict[str, Path]) -> dict[str, Path]:
    """Every file or folder that the stage reads."""
    tokens = jobs.layout.tokens(model_of(job))
    if verb_of(job) == "evaluate":
        return checkpoints | {split: tokens / f"{split}.arrow" for split in ("validation", "test")}
    reviews = {"reviews": jobs.layout.reviews, "tokenizer": tokens / "tokenizer"}
    return reviews | {"validation": tokens / "validation.arrow", "best": checkpoints["best"]}
