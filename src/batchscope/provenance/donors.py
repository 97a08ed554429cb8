"""Finished runs whose files a workflow is about to overwrite while other trainings of it would take them.

A changed learning rate can make a run under one policy what another policy's run has been. Snakemake deletes the files
of a training when it starts it, in any order; so, before the first job, these files get a second name among the states.
"""

from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

from batchscope.files import link, write_json
from batchscope.provenance.fingerprint import file_hash
from batchscope.provenance.jobs import JobFile
from batchscope.provenance.manifests import run_fingerprint
from batchscope.provenance.reuse import MANIFEST, StoredManifest, stored_manifest
from batchscope.provenance.stages import model_of, subject_of, verb_of
from batchscope.training.spec import TrainSpec

KEPT = (f"*/state/*-finished/{MANIFEST}",)
"""Manifests of the runs that were kept, under ``results``."""


def keep_donors(jobs: JobFile, stale: Iterable[str]) -> None:
    """Keep the finished runs of ``stale`` trainings that other trainings want.

    They are kept in ``state/{fingerprint}-finished``, which the training that takes one deletes, as it does with
    states. A run that lacks a file is not kept: nobody could take it.
    """
    layout, hash_of = jobs.layout, cache(file_hash)
    old = {job: stored_manifest(layout.run(subject_of(job)) / MANIFEST) for job in stale if verb_of(job) == "train"}
    if not old:
        return
    wanted = {}
    for job in jobs.jobs:
        tokens = layout.tokens(model_of(job))
        if verb_of(job) == "train" and (tokens / "train.arrow").is_file():
            wanted[job] = run_fingerprint(jobs.spec(job, TrainSpec), jobs.code(job), tokens, hash_of)
    for job, manifest in old.items():
        if manifest and wanted.get(job) != manifest["fingerprint"] and manifest["fingerprint"] in wanted.values():
            folder = layout.state / f"{manifest['fingerprint']}-finished"
            if not (folder / MANIFEST).is_file():
                with suppress(FileNotFoundError):
                    _keep(layout.run(subject_of(job)), manifest, folder)


def _keep(run: Path, manifest: StoredManifest, folder: Path) -> None:
    """Give a run's files a second name in ``folder``; the manifest comes last, so that half of them is none."""
    for name in manifest["files"]:
        link(run / name, folder / name)
    write_json(folder / MANIFEST, manifest)
