"""What a training leaves for its later stages is what they would make themselves, byte by byte.

Where the imports or the code of a process matter, it is a fresh one; the others are forked and need not import torch.
"""

import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from jobs import RUN, Jobs, jobs_of
from small import tiny_config

from batchscope.cli import main
from batchscope.files import read_json, write_json
from batchscope.provenance import handover
from batchscope.provenance.code import PACKAGE
from batchscope.provenance.fingerprint import file_hash
from batchscope.provenance.handover import FILES, collect
from batchscope.provenance.layout import Layout
from batchscope.training.stop import EXIT_STATUS

INSIGHT = {
    "attention": {"enabled": True, "reviews": 9, "ablation_reviews": 5},
    "cartography": {"enabled": True, "examples": 9},
    "errors": {"enabled": True, "reviews": 9},
    "geometry": {"enabled": True, "examples": 9, "draws": 2, "eigenvalues": 1, "hessian_products": 9},
}
TEXTS = ["one of the best films of the year", "i wanted to like it , but it is a bore from the first minute on"]
IMPORTED = """
import sys
from batchscope.cli.main import main
main()
print([name for name in ("torch", "transformers", "numpy", "pyarrow") if name in sys.modules])
"""


def started_in_no_time() -> None:
    """Beside the start-up of a forked process no training is short."""
    handover.SHORT = float("inf")


@dataclass
class Run:
    """One run of the small study, by the verbs in processes of their own."""

    jobs: Jobs
    name: str = RUN
    threads: int = 1

    @property
    def layout(self) -> Layout:
        return self.jobs.layout

    @property
    def folder(self) -> Path:
        return self.layout.run(self.name)

    def left(self) -> list[str]:
        """Stages that something is left for."""
        return sorted(path.relative_to(self.layout.ready).parts[0] for path in self.layout.ready.glob("*/*/*/*/seed1"))

    def succeed(self, verb: str, **environment: str):
        """In a forked process."""
        words = f"{verb}/{self.name}", "--threads", self.threads
        job = self.jobs.fork(*words, before=started_in_no_time, **environment)
        done = job.complete(timeout=300)
        assert done.returncode == 0, done.stderr
        return done

    def succeed_afresh(self, verb: str, program: str = IMPORTED, **environment: str):
        """In a process that imports what it needs."""
        words = f"{verb}/{self.name}", "--threads", self.threads
        return self.jobs.succeed(*words, program=("-c", program), **environment)

    def hashes(self, stage: str) -> list[str]:
        return [file_hash(self.folder / name) for name in FILES[stage]]


def write_reviews(run: Run, texts: list[str]) -> None:
    reviews = [{"name": f"text{n}", "title": "t", "text": text, "label": None} for n, text in enumerate(texts)]
    write_json(run.layout.reviews, {"reviews": reviews})


def new_run(folder: Path, small_study, name: str = RUN, threads: int = 1, **changes) -> Run:
    """A run that is not trained yet, and whose reviews are not chosen yet."""
    run = Run(jobs_of(folder, tiny_config(**changes)), name, threads)
    (run.layout.study / "data").mkdir(parents=True)
    (run.layout.study / "tokens").symlink_to(small_study.folder / "tokens")
    return run


@pytest.fixture(scope="module", params=[("bert", 1), ("modernbert", 2)], ids=["bert", "modernbert, two threads"])
def trained(request, small_study, tmp_path_factory):
    """A trained run and what its training left, to be copied."""
    model, threads = request.param
    folder, name = tmp_path_factory.mktemp("trained"), RUN.replace("bert", model)
    run = new_run(folder, small_study, name, threads, keep="all", insight=INSIGHT)
    write_reviews(run, TEXTS)
    run.succeed("train")
    return run


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the trained run."""
    folder = tmp_path / "copy"
    shutil.copytree(trained.jobs.folder, folder, symlinks=True)
    jobs = Jobs(folder, trained.jobs.study, dict(trained.jobs.codes))
    return Run(jobs, trained.name, trained.threads)


def test_a_result_made_ahead_is_the_stage_s_own_and_is_collected_without_torch(run):
    assert run.left() == sorted(FILES)
    collected = "the training of this run has computed this already"
    for stage in FILES:
        if stage == "evaluate":
            done = run.succeed_afresh(stage)
            assert done.stdout.strip() == "[]", "neither torch nor anything else heavy was imported"
        else:
            done = run.succeed(stage)
        assert collected in done.stderr
        ahead = run.hashes(stage)
        for name in FILES[stage]:
            (run.folder / name).unlink()
        done = run.succeed(stage)
        assert collected not in done.stderr, "what was collected once is gone, so that the stage computes"
        assert run.hashes(stage) == ahead
    assert run.left() == []


def nothing(run):
    pass


def changed_spec(run):
    run.jobs.study = jobs_of(run.jobs.folder, tiny_config(data=tiny_config()["data"] | {"max_length": 24})).study


def changed_reviews(run):
    write_reviews(run, TEXTS[:1])


def changed_checkpoint(run):
    best = run.folder / "checkpoints/best.safetensors"
    content = bytearray(best.read_bytes())
    content[-1] ^= 1
    best.write_bytes(content)


def missing_file(run):
    (run.layout.ready / f"attention/{run.name}/attention/measures.json").unlink()


def another_code(run):
    write_json(run.layout.ready / f"attention/{run.name}/made_of.json", "of another code")


CHANGES = [nothing, changed_spec, changed_reviews, changed_checkpoint, missing_file, another_code]


@pytest.mark.parametrize("change", CHANGES)
def test_only_what_is_exactly_the_stage_s_own_is_collected(run, change, monkeypatch):
    change(run)
    monkeypatch.chdir(run.jobs.folder)
    collected = collect(run.jobs.read(), f"attention/{run.name}", run.threads)
    assert collected == (change is nothing)
    assert all((run.folder / name).is_file() == collected for name in FILES["attention"])
    assert run.left() == sorted(FILES.keys() - {"attention"}), "what nobody can use is gone; the others are untouched"


def test_a_new_training_replaces_what_the_old_one_left(run):
    evaluation = run.layout.ready / f"evaluate/{run.name}/made_of.json"
    before = evaluation.read_text()
    evaluation.write_text('"stale"')
    shutil.rmtree(run.folder)
    run.succeed("train")
    assert run.left() == sorted(FILES) and evaluation.read_text() == before


@pytest.fixture
def fresh(small_study, tmp_path):
    """A run that is not trained yet; its reviews are not chosen yet either."""
    return new_run(tmp_path, small_study, budget={"epochs": 1})


def test_without_reviews_the_evaluation_alone_is_made_ahead(fresh):
    done = fresh.succeed("train")
    assert fresh.left() == ["evaluate"]
    assert "left to its own job" not in done.stderr
    assert "batchscope train: done in " in done.stderr.splitlines()[-1]
    assert "batchscope evaluate: done in " in fresh.succeed("evaluate").stderr, "each verb logs its own seconds"


def test_what_fails_ahead_is_a_warning_and_left_to_its_own_job(fresh):
    fresh.layout.reviews.write_text("{}")
    done = fresh.succeed("train")
    assert done.stderr.count("attention is left to its own job") == 1 and "Traceback" not in done.stderr
    assert (fresh.folder / "train.json").is_file()
    assert fresh.left() == ["evaluate"]


def test_nothing_is_made_ahead_near_the_deadline(fresh):
    write_reviews(fresh, TEXTS)
    done = fresh.succeed("train", SLURM_JOB_END_TIME=str(int(time.time()) + 200))
    assert (fresh.folder / "train.json").is_file() and "no time is left" in done.stderr
    assert fresh.left() == []


def last_long_enough() -> None:
    handover.SHORT = 0


def test_after_a_long_training_the_measures_are_left_to_their_own_jobs(tmp_path, small_study):
    """They may take longer than the training, and can run elsewhere at the same time."""
    run = new_run(tmp_path, small_study, budget={"epochs": 1}, insight={"errors": INSIGHT["errors"]})
    training = run.jobs.fork(f"train/{run.name}", "--threads", 1, before=last_long_enough)
    assert training.complete(timeout=300).returncode == 0
    assert run.left() == ["evaluate"]


def test_strict_training_leaves_its_stages_to_themselves(tmp_path, small_study):
    strict = new_run(tmp_path, small_study, budget={"epochs": 1}, determinism="strict")
    strict.succeed("train")
    assert (strict.folder / "train.json").is_file() and strict.left() == []


EDITED = """
import batchscope.evaluation.evaluate as evaluate
from pathlib import Path
import batchscope.training.state as state
real = state.Workspace.keep_checkpoints
def edit(*arguments, **named):
    metrics = Path(evaluate.__file__).with_name("metrics.py")
    metrics.write_text(metrics.read_text().replace("CALIBRATION_BINS = 15", "CALIBRATION_BINS = 14"))
    real(*arguments, **named)
state.Workspace.keep_checkpoints = edit
"""


def test_a_module_edited_during_the_training_leaves_nothing_behind(fresh, tmp_path):
    """Not even where the edit is reverted before the stage's own job starts."""
    source = tmp_path / "source"
    shutil.copytree(PACKAGE.parent, source, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    done = fresh.succeed_afresh("train", EDITED + IMPORTED, PYTHONPATH=str(source), PYTHONDONTWRITEBYTECODE="1")
    assert "its code was edited while the training ran" in done.stderr
    assert (fresh.folder / "train.json").is_file() and fresh.left() == []


def be_stopped_amid_imports() -> None:
    main.stages.VERBS["train"] = lambda task: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(30)


def test_a_process_that_is_stopped_before_it_trains_says_so(fresh):
    stopped = fresh.jobs.fork(f"train/{fresh.name}", "--threads", 1, before=be_stopped_amid_imports)
    done = stopped.complete(timeout=300)
    assert done.returncode == EXIT_STATUS and "Traceback" not in done.stderr
    assert f"train/{fresh.name} was stopped by a signal before it was done" in done.stderr
    assert read_json(fresh.layout.process(f"train/{fresh.name}"))["phase"] == "stopped"


def be_killed_ahead() -> None:
    handover.code_hash = lambda *_: os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_killed_ahead_has_lost_no_training(fresh):
    killed = fresh.jobs.fork(f"train/{fresh.name}", "--threads", 1, before=be_killed_ahead)
    assert killed.complete(timeout=300).returncode == -signal.SIGKILL
    assert list(fresh.layout.ready.glob("*/*/*/*/.*")), "it died in the midst of it"
    done = fresh.succeed("train")
    assert "after update 12" in done.stderr
    assert fresh.left() == ["evaluate"] and not list(fresh.layout.ready.glob("*/*/*/*/.*"))
