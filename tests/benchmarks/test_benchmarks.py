"""The benchmarks compare like with like: a peer is timed only if its gradient is ours."""

import subprocess
from dataclasses import replace

import pytest
import torch

from benchmarks import fairness, prepare
from benchmarks.cases import CASES, OURS_AUTO, TRAINER, Training, select
from benchmarks.classifier import Classifier
from benchmarks.harness import PAGE, RESULTS, Bench, revision, run_rounds
from benchmarks.tables import section
from benchmarks.work import Work

TARGET, MICRO_BATCH = 8, 2


@pytest.fixture(scope="module")
def folder(minilm, tmp_path_factory):
    """Where the tokens and the encoders are made, from the embedded corpus."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BATCHSCOPE_IMDB", raising=False)
        yield tmp_path_factory.mktemp("benchmarks")


def tiny_work(folder, encoder, **changes) -> Work:
    """One window of a tiny encoder without dropout."""
    tokens = prepare.tokens(folder, train=24, validation=8, max_length=16)
    checkpoint = prepare.checkpoint(encoder, folder, dropout=False)
    work = Work(tokens, checkpoint, target_batch_size=TARGET, updates=1, physical_batch_size=MICRO_BATCH, threads=1)
    return replace(work, **changes)


@pytest.mark.parametrize("encoder", ["tiny", "tiny-modernbert"])
@pytest.mark.parametrize("peer", ["trainer", "accelerate_loop", "lightning_module", "straightforward"])
def test_every_peer_makes_our_gradient_of_the_window(folder, encoder, peer):
    if peer == "lightning_module":
        pytest.importorskip("lightning")
    compared = fairness.compared_gradients(fairness.contenders([peer]), tiny_work(folder, encoder))
    assert compared[peer]["passed"], compared
    assert compared[peer]["norm_ratio"] == pytest.approx(1, abs=fairness.TOLERANCE)


def test_the_same_examples_in_another_order_of_windows_are_found_out(folder):
    """Other windows are other work, though every example is seen as often."""

    def backwards(work):
        fairness.contenders(["straightforward"])["straightforward"](replace(work, seed=work.seed + 1))

    assert not fairness.compared_gradients({"backwards": backwards}, tiny_work(folder, "tiny"))["backwards"]["passed"]


def test_a_peer_with_a_wrong_gradient_is_refused_and_not_timed(folder, monkeypatch):
    """Trainer around a model like those of transformers: as many times too large as there are micro-batches."""
    forward = Classifier.forward

    def like_those_of_transformers(self, input_ids, attention_mask, labels, **_):
        return forward(self, input_ids, attention_mask, labels)

    monkeypatch.setattr(Classifier, "forward", like_those_of_transformers)
    monkeypatch.setattr(Classifier, "accepts_loss_kwargs", True)
    work = tiny_work(folder, "tiny")
    compared = fairness.compared_gradients(fairness.contenders(["trainer"]), work)
    assert not compared["trainer"]["passed"]
    assert compared["trainer"]["norm_ratio"] == pytest.approx(TARGET / MICRO_BATCH, rel=1e-3)

    case = Training("refused", "refused", "cpu", "tiny", TARGET, 1, 2, (TRAINER,))
    rounds = run_rounds(case, work, compared, Bench(folder, repeats=1, threads=1, attempts=1))
    assert rounds == [{}]
    result = {"rounds": rounds, "gradients": compared, "flops_per_sample": 1.0}
    assert "not timed: its gradient is" in section(case, result | {"machine": machine(), "corpus": "", "revision": ""})


def machine():
    return {"device": "CPU", "cores": 1, "threads": 1, "bfloat16": [], "python": "3", "versions": {}}


@pytest.mark.parametrize("updates", [0, 2])
def test_a_peer_that_does_not_make_one_update_is_an_error(folder, updates):
    def train(work):
        model = work.classifier()
        for _ in range(updates):
            torch.optim.Adam(model.parameters()).step()

    with pytest.raises(RuntimeError, match=f"{updates} updates, not one"):
        fairness.gradient_of(train, tiny_work(folder, "tiny"))


def test_a_measurement_in_a_process_of_its_own_becomes_a_row(folder):
    """The peers are measured in the test of the GPU check, by the same function."""
    case = Training("smoke", "smoke", "cpu", "tiny", TARGET, 1, 2, (OURS_AUTO,))
    rounds = run_rounds(case, tiny_work(folder, "tiny", updates=3), {}, Bench(folder, repeats=1, threads=1, attempts=1))
    [[(label, found)]] = [measured.items() for measured in rounds]
    assert label == OURS_AUTO.label
    assert len(found["update_seconds"]) == case.updates
    assert found["samples_per_second"] > 0 and found["product_rate"] > 0 and found["peak_memory_bytes"] > 0
    assert found["facts"]["physical_batch_size"] == TARGET
    assert set(found["facts"]["trial"]) == {"micro_step", "samples_per_second", "seconds"}
    result = {"rounds": rounds, "gradients": {}, "flops_per_sample": 1.0, "corpus": "", "revision": ""}
    assert section(case, result | {"machine": machine()}).count(OURS_AUTO.label) == 1


def test_cases_are_chosen_by_name_beginning_or_device():
    assert [case.name for case in select("small")] == ["small-64", "small-256"]
    assert [case.name for case in select("overhead,minilm-64")] == ["minilm-64", "overhead"]
    assert select("all") == list(CASES)
    assert {case.device for case in select("gpu")} == {"cuda"}
    with pytest.raises(Exception, match="there is no case 'smal'"):
        select("smal")


def test_a_table_names_the_measured_commit_and_whether_the_code_differs_from_it(tmp_path):
    def git(*command):
        return subprocess.run(["git", "-C", tmp_path, *command], check=True, capture_output=True, text=True).stdout

    assert revision(tmp_path) == ""
    git("init", "--quiet")
    for name in ("code.py", PAGE, f"{RESULTS}/case.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before", encoding="utf-8")
    git("add", ".")
    git("-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", "all")
    commit = git("rev-parse", "--short", "HEAD").strip()
    for name, expected in ((PAGE, ""), (f"{RESULTS}/case.json", ""), ("code.py", "-dirty")):
        (tmp_path / name).write_text("after", encoding="utf-8")
        assert revision(tmp_path) == f"revision {commit}{expected}"
