"""What a training leaves for its later stages is what they would make themselves, byte by byte."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from batchscope.files import write_json
from batchscope.provenance.fingerprint import file_hash
from batchscope.provenance.handover import FILES

EVALUATION = {"precision": "float32"}
ATTENTION = {"max_length": 32, "truncation": "head"}
TEXTS = ["one of the best films of the year", "i wanted to like it , but it is a bore from the first minute on"]
PROGRAM = """
import sys
from batchscope.cli import main
main()
print([name for name in ("torch", "transformers", "numpy", "pyarrow") if name in sys.modules])
"""


@dataclass
class Run:
    """One run in a folder of its own, by the verbs in processes of their own."""

    tokens: Path
    folder: Path
    spec: str

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def ready(self) -> Path:
        return self.folder / "state/ready"

    @property
    def reviews(self) -> Path:
        return self.folder / "reviews.json"

    def left(self) -> list[str]:
        """Stages that something is left for."""
        return sorted(path.name.split("-")[0] for path in self.ready.glob("*")) if self.ready.is_dir() else []

    def verb(self, verb: str, *options, threads: int = 1) -> subprocess.CompletedProcess[str]:
        places = ["--tokens", self.tokens, "--run", self.run, "--state", self.folder / "state", "--threads", threads]
        command = [sys.executable, "-c", PROGRAM, verb, *places, *options]
        return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)

    def train(self, threads: int = 1, settings=None, **changes) -> subprocess.CompletedProcess[str]:
        ahead = {
            "evaluate": {"spec": EVALUATION, "code": "evaluation's"},
            "attention": {"spec": ATTENTION, "code": "attention's", "reviews": str(self.reviews)},
        } | changes
        settings = {"physical_batch_size": 6, "device": "cpu", "tracking": {"mode": "disabled"}} | (settings or {})
        options = ["--spec", self.spec, "--settings", json.dumps(settings), "--ahead", json.dumps(ahead)]
        return self.verb("train", *options, "--tracking-folder", self.folder, threads=threads)

    def evaluate(self, code: str = "evaluation's", spec=EVALUATION, threads: int = 1):
        options = ["--spec", json.dumps(spec), "--code", code, "--device", "cpu"]
        return self.verb("evaluate", *options, threads=threads)

    def attention(self, code: str = "attention's", spec=ATTENTION, threads: int = 1):
        options = ["--spec", json.dumps(spec), "--code", code, "--device", "cpu", "--reviews", self.reviews]
        return self.verb("attention", *options, threads=threads)

    def hashes(self, stage: str) -> list[str]:
        return [file_hash(self.run / name) for name in FILES[stage]]


def write_reviews(path: Path, texts: list[str]) -> None:
    reviews = [{"name": f"text{n}", "title": "t", "text": text, "label": None} for n, text in enumerate(texts)]
    write_json(path, {"reviews": reviews})


@pytest.fixture(scope="module", params=[("bert", 1), ("modernbert", 2)], ids=["bert", "modernbert, two threads"])
def trained(request, small_study, tmp_path_factory):
    """A trained run and what its training left, to be copied."""
    model, threads = request.param
    spec = json.dumps(small_study.spec(model).to_dict())
    run = Run(small_study.tokens(model), tmp_path_factory.mktemp("trained"), spec)
    write_reviews(run.reviews, TEXTS)
    run.train(threads)
    return run, threads


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the trained run, in its own place: what was left keeps the name of that place."""
    original, _ = trained
    copy = tmp_path / "copy"
    shutil.copytree(original.folder, copy)
    yield original
    shutil.rmtree(original.folder)
    shutil.copytree(copy, original.folder)


def test_a_result_made_ahead_is_the_stage_s_own_and_is_collected_without_torch(trained, run):
    threads = trained[1]
    assert run.left() == ["attention", "evaluate"]
    for stage in ("evaluate", "attention"):
        done = getattr(run, stage)(threads=threads)
        assert done.stdout.strip() == "[]", "neither torch nor anything else heavy was imported"
        ahead = run.hashes(stage)
        for name in FILES[stage]:
            (run.run / name).unlink()
        done = getattr(run, stage)(threads=threads)
        assert "torch" in done.stdout, "what was collected once is gone, so that the stage computes"
        assert run.hashes(stage) == ahead
    assert run.left() == []


def changed_spec(run):
    return {"spec": ATTENTION | {"max_length": 24}}


def changed_code(run):
    return {"code": "newer"}


def changed_reviews(run):
    write_reviews(run.reviews, TEXTS[:1])
    return {}


def changed_checkpoint(run):
    best = run.run / "checkpoints/best.safetensors"
    content = bytearray(best.read_bytes())
    content[-1] ^= 1
    best.write_bytes(content)
    return {}


def missing_file(run):
    (file,) = run.ready.glob("attention-*/attention/measures.json")
    file.unlink()
    return {}


@pytest.mark.parametrize("change", [changed_spec, changed_code, changed_reviews, changed_checkpoint, missing_file])
def test_what_is_not_exactly_the_stage_s_own_is_computed(run, change):
    done = run.attention(**change(run))
    assert "torch" in done.stdout
    assert all((run.run / name).is_file() for name in FILES["attention"])
    assert run.left() == ["evaluate"], "what nobody can use any more is gone; the other stage's is untouched"


def test_a_new_training_replaces_what_the_old_one_left(run, trained):
    before = {path.name for path in run.ready.iterdir()}
    shutil.rmtree(run.run)
    run.train(trained[1], evaluate={"spec": EVALUATION, "code": "newer"})
    assert run.left() == ["attention", "evaluate"]
    assert len({path.name for path in run.ready.iterdir()} - before) == 1


@pytest.fixture
def fresh(small_study, tmp_path):
    """A run that is not trained yet; its reviews are not chosen yet either."""
    return Run(
        small_study.tokens("bert"), tmp_path, json.dumps(small_study.spec("bert", budget={"epochs": 1}).to_dict())
    )


def test_without_reviews_the_evaluation_alone_is_made_ahead(fresh):
    done = fresh.train()
    assert fresh.left() == ["evaluate"]
    assert "could not" not in done.stderr


def test_what_fails_ahead_is_a_warning_and_left_to_its_own_job(fresh):
    fresh.reviews.write_text("{}")
    done = fresh.train()
    assert done.stderr.count("could not attention ahead") == 1 and "Traceback" not in done.stderr
    assert (fresh.run / "train.json").is_file()
    assert fresh.left() == ["evaluate"]


def test_nothing_is_made_ahead_near_the_deadline(fresh, monkeypatch):
    write_reviews(fresh.reviews, TEXTS)
    monkeypatch.setitem(os.environ, "SLURM_JOB_END_TIME", str(int(time.time()) + 200))
    done = fresh.train()
    assert (fresh.run / "train.json").is_file() and "no time is left" in done.stderr
    assert fresh.left() == []


def test_strict_training_leaves_its_stages_to_themselves(fresh, small_study):
    spec = small_study.spec("bert", budget={"epochs": 1}, determinism="strict")
    fresh.spec = json.dumps(spec.to_dict())
    fresh.train()
    assert (fresh.run / "train.json").is_file() and fresh.left() == []


KILLED = """
import os, signal, sys
import batchscope.provenance.handover as handover
from batchscope.cli import main
handover._compute = lambda request, folder: os.kill(os.getpid(), signal.SIGKILL)
main()
"""


def test_a_process_killed_ahead_has_lost_no_training(fresh, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PROGRAM", KILLED)
    with pytest.raises(subprocess.CalledProcessError):
        fresh.train()
    assert list(fresh.ready.glob(".*")), "it died in the midst of it"
    monkeypatch.undo()
    done = fresh.train()
    assert "going on after update 12" in done.stderr
    assert fresh.left() == ["evaluate"] and not list(fresh.ready.glob(".*"))


def test_each_verb_logs_its_own_seconds(fresh):
    done = fresh.train()
    assert "batchscope train: done in " in done.stderr.splitlines()[-1]
    assert "batchscope evaluate: done in " in fresh.evaluate().stderr
