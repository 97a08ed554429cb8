"""A training from its tokens to its files: what it writes is complete, consistent and reproducible."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, log_loss
from small import train_settings

from batchscope.data.tokens import load_tokens
from batchscope.errors import UserError
from batchscope.evaluation.counts import log_softmax
from batchscope.evaluation.evaluate import evaluate
from batchscope.evaluation.predict import predict
from batchscope.evaluation.spec import EvaluationSpec
from batchscope.files import read_json
from batchscope.insight.attention import layer_windows, map_measures
from batchscope.insight.weights import attention_maps
from batchscope.model.checkpoint import load_checkpoint
from batchscope.model.classifier import build_model
from batchscope.provenance.fingerprint import file_hash
from batchscope.training.loop import train
from batchscope.training.state import Workspace

SETTINGS = train_settings()
CPU = torch.device("cpu")


def run_training(
    small_study, folder, model="bert", batch=16, settings=SETTINGS, observe=lambda record: None, **changes
):
    spec = small_study.spec(model, batch, **changes)
    train(spec, "code", settings, small_study.tokens(model), folder / "run", folder / "state", observe)
    return folder / "run"


def history(run):
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [r for r in lines if r["kind"] == "update"], [r for r in lines if r["kind"] == "epoch"]


@pytest.fixture(scope="module", params=["bert", "modernbert"])
def trained(request, small_study, tmp_path_factory):
    """A finished and evaluated run of each architecture; all its checkpoints kept."""
    run = run_training(small_study, tmp_path_factory.mktemp(request.param), request.param, keep="all")
    checkpoints = {name: run / "checkpoints" / f"{name}.safetensors" for name in ("best", "last")}
    evaluate(EvaluationSpec(precision="float32"), small_study.tokens(request.param), checkpoints, run, "cpu")
    return request.param, run


def test_history_has_every_update_and_epoch_once_with_counts_that_add_up(trained):
    _, run = trained
    updates, epochs = history(run)
    assert [r["update"] for r in updates] == list(range(1, 25))
    assert [r["examples"] for r in updates] == ([16] * 11 + [8]) * 2
    assert [r["samples"] for r in updates] == np.cumsum([16] * 11 + [8] + [16] * 11 + [8]).tolist()
    for epoch in epochs:
        of_epoch = [r for r in updates if r["epoch"] == epoch["epoch"]]
        assert epoch["train"]["correct"] == sum(r["correct"] for r in of_epoch)
        assert epoch["train"]["examples"] == 184
        expected_loss = sum(r["loss"] * r["examples"] for r in of_epoch) / 184
        assert epoch["train"]["loss"] == pytest.approx(expected_loss, rel=1e-12)
    assert all(r["accuracy"] == r["correct"] / r["examples"] for r in updates)


def test_the_best_checkpoint_is_the_earliest_of_the_most_accurate_epochs(trained):
    _, run = trained
    _, epochs = history(run)
    correct = [r["validation"]["correct"] for r in epochs]
    best = correct.index(max(correct)) + 1
    facts = read_json(run / "train.json")
    assert (facts["best_epoch"], facts["best_validation"]) == (best, epochs[best - 1]["validation"])
    names = {path.name for path in (run / "checkpoints").iterdir()}
    per_epoch = [f"epoch{r['epoch']}-val_acc{r['validation']['accuracy']:.4f}.safetensors" for r in epochs]
    assert names == {*per_epoch, "best.safetensors", "last.safetensors"}
    assert file_hash(run / "checkpoints" / per_epoch[best - 1]) == file_hash(run / "checkpoints/best.safetensors")
    assert file_hash(run / "checkpoints" / per_epoch[-1]) == file_hash(run / "checkpoints/last.safetensors")


def test_metrics_agree_with_scikit_learn_on_the_predictions(trained, small_study):
    model, run = trained
    metrics = read_json(run / "metrics.json")
    table = pq.read_table(run / "predictions.parquet").to_pandas()
    for split in ("validation", "test"):
        tokens = load_tokens(small_study.tokens(model) / f"{split}.arrow")
        for checkpoint in ("best", "last"):
            rows = table[(table.split == split) & (table.checkpoint == checkpoint)]
            assert rows.example_id.tolist() == tokens.example_id.tolist()
            logits, scores = rows[["logit_0", "logit_1"]].to_numpy(), metrics[split][checkpoint]
            assert scores["accuracy"] == accuracy_score(rows.label, logits.argmax(1))
            assert scores["correct"] == accuracy_score(rows.label, logits.argmax(1), normalize=False)
            probabilities = np.exp(log_softmax(logits))
            assert scores["nll"] == pytest.approx(log_loss(rows.label, probabilities), rel=1e-12)


def test_evaluation_repeats_the_validation_of_the_best_epoch(trained):
    _, run = trained
    scores, facts = read_json(run / "metrics.json")["validation"]["best"], read_json(run / "train.json")
    assert scores["correct"] == facts["best_validation"]["correct"]
    assert scores["loss"] == pytest.approx(facts["best_validation"]["loss"], rel=1e-6)


def test_a_checkpoint_alone_rebuilds_the_model(trained, small_study):
    architecture, run = trained
    model, facts = load_checkpoint(run / "checkpoints/last.safetensors", CPU)
    assert facts["epoch"] == 2
    weights = load_file(run / "checkpoints/last.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items() if name in weights)
    tokens = load_tokens(small_study.tokens(architecture) / "test.arrow")
    table = pq.read_table(run / "predictions.parquet", filters=[("split", "=", "test"), ("checkpoint", "=", "last")])
    logits = predict(model, tokens, CPU, torch.float32)
    np.testing.assert_array_equal(logits[:, 0], table["logit_0"].to_numpy())


def reference_predict(model, tokens):
    """One review at a time, without padding."""
    rows = []
    with torch.no_grad():
        for ids, length in zip(tokens.input_ids, tokens.length, strict=True):
            row = torch.tensor(ids[:length].astype(np.int64))[None]
            rows.append(model(row, torch.ones_like(row, dtype=torch.bool))[0].numpy())
    return np.array(rows)


def test_batched_predictions_equal_those_of_single_unpadded_reviews(trained, small_study):
    architecture, run = trained
    model, _ = load_checkpoint(run / "checkpoints/best.safetensors", CPU)
    tokens = load_tokens(small_study.tokens(architecture) / "test.arrow")
    short = dataclasses.replace(tokens, length=np.minimum(tokens.length, 5 + np.arange(len(tokens)) % 20))
    np.testing.assert_allclose(predict(model, short, CPU, torch.float32), reference_predict(model, short), atol=2e-6)


def test_attention_rows_sum_to_one_and_sliding_layers_keep_to_their_window(trained, small_study):
    architecture, run = trained
    model, _ = load_checkpoint(run / "checkpoints/best.safetensors", CPU)
    tokens = load_tokens(small_study.tokens(architecture) / "validation.arrow")
    weights, probabilities = attention_maps(model, torch.from_numpy(tokens.input_ids[0].astype(np.int64)))
    n = tokens.input_ids.shape[1]
    windows = layer_windows(model.config, len(weights))
    assert windows == ([None, None] if architecture == "bert" else [None, 8, 8])
    np.testing.assert_allclose(weights.sum(2), 1, atol=1e-5)
    distance = np.abs(np.arange(n)[:, None] - np.arange(n))
    for layer, window in zip(weights, windows, strict=True):
        if window is not None:
            assert (layer[distance > window] == 0).all() and (layer[distance <= window] > 0).all()
        assert 0 < map_measures(0, layer, window, np.zeros(n, bool))["entropy"] <= 1
    expected = np.exp(log_softmax(predict(model, tokens, CPU, torch.float32)[:1]))[0]
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_uniform_attention_has_entropy_one_over_the_allowed_keys():
    n, window = 20, 3
    allowed = np.abs(np.arange(n)[:, None] - np.arange(n)) <= window
    uniform = allowed / allowed.sum(1, keepdims=True)
    special = np.arange(n) == 0
    measures = map_measures(0, uniform, window, special)
    assert measures["entropy"] == pytest.approx(1.0)
    assert map_measures(0, uniform, None, special)["entropy"] < 0.7
    assert map_measures(0, np.eye(n), None, special)["entropy"] == 0.0
    assert measures["special_share"] == pytest.approx(uniform[:, 0].mean())


def test_training_again_gives_the_same_bytes_whatever_the_settings(small_study, tmp_path):
    first = run_training(small_study, tmp_path / "a")
    second = run_training(small_study, tmp_path / "b", settings=train_settings(save_every=0))
    for name in ("history.jsonl", "checkpoints/best.safetensors", "checkpoints/last.safetensors"):
        assert file_hash(first / name) == file_hash(second / name)


def test_no_per_epoch_checkpoint_stays_where_none_is_kept(small_study, tmp_path):
    best = run_training(small_study, tmp_path / "best")
    none = run_training(small_study, tmp_path / "none", keep="none")
    names = ("best.safetensors", "last.safetensors")
    assert sorted(path.name for path in (none / "checkpoints").iterdir()) == sorted(names)
    for name in names:
        assert file_hash(none / "checkpoints" / name) == file_hash(best / "checkpoints" / name)
    recorded = read_json(none / "manifest.json")["files"]
    assert {name for name in recorded if name.startswith("checkpoints/")} == {f"checkpoints/{name}" for name in names}


def test_equal_checkpoints_share_their_space_on_disk(trained):
    _, run = trained
    files = list((run / "checkpoints").iterdir())
    assert len(files) == 4
    assert len({path.stat().st_ino for path in files}) == len({file_hash(path) for path in files}) == 2


def test_only_the_best_checkpoint_stays_and_the_state_goes(small_study, tmp_path):
    run = run_training(small_study, tmp_path)
    best = read_json(run / "train.json")["best_epoch"]
    names = sorted(path.name.split("-")[0] for path in (run / "checkpoints").iterdir())
    assert names == ["best.safetensors", f"epoch{best}", "last.safetensors"]
    assert list((tmp_path / "state").iterdir()) == []


class Cut(Exception):
    """Stands for whatever ends a process between two updates."""


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_a_run_cut_off_and_started_again_ends_with_the_same_bytes(small_study, tmp_path, architecture):
    whole = run_training(small_study, tmp_path / "whole", architecture)

    def cut(record):
        if record["kind"] == "update" and record["update"] == 17:
            raise Cut

    with pytest.raises(Cut):
        run_training(small_study, tmp_path / "cut", architecture, observe=cut)
    seen = []
    resumed = run_training(small_study, tmp_path / "cut", architecture, observe=seen.append)
    assert seen[0]["update"] == 13, "it goes on after the state saved at the end of the first epoch"
    for name in ("history.jsonl", "checkpoints/best.safetensors", "checkpoints/last.safetensors"):
        assert file_hash(whole / name) == file_hash(resumed / name)


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b[:500] + bytes([b[500] ^ 1]) + b[501:]])
def test_a_damaged_state_is_left_for_the_one_before(tmp_path, damage):
    workspace = Workspace(tmp_path)
    for update in (1, 2):
        workspace.append({"update": update})
        workspace.save({"update": update}, {"weights": torch.randn(500)}, {})
    newest = max(tmp_path.glob("state-*.pt"))
    newest.write_bytes(damage(newest.read_bytes()))
    state = Workspace(tmp_path).load()
    assert state is not None and state["ledger"]["update"] == 1
    assert (tmp_path / "history.jsonl").read_text() == '{"update": 1}\n'


HISTORY = b'{"update": 1}\n{"update": 2}\n'


@pytest.mark.parametrize(
    ("harmed", "resumed"),
    [
        (HISTORY + b'{"update": 3}\n', 2),
        (HISTORY.replace(b"2", b"3"), 1),
        (HISTORY[:-3], 1),
        (HISTORY.replace(b"1", b"0"), None),
        (b"", None),
    ],
    ids=["whole", "changed at its end", "cut off", "changed at its beginning", "empty"],
)
def test_a_state_whose_history_is_damaged_is_not_resumed_from(tmp_path, caplog, harmed, resumed):
    workspace = Workspace(tmp_path)
    for update in (1, 2):
        workspace.append({"update": update})
        workspace.save({"update": update}, {"weights": torch.randn(5)}, {})
    assert workspace.history_file.read_bytes() == HISTORY
    workspace.history_file.write_bytes(harmed)
    again = Workspace(tmp_path)
    state = again.load()
    again.close()
    assert (state and state["ledger"]["update"]) == resumed
    assert workspace.history_file.read_bytes() == HISTORY[: 14 * (resumed or 0)]
    assert (f"{workspace.history_file} is damaged" in caplog.text) == (resumed != 2)


DAMAGES = {
    "changed": lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "lost": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("moment", ["while it trains", "while it is stopped"])
def test_a_damaged_checkpoint_of_an_unfinished_run_is_not_published(small_study, tmp_path, caplog, moment, damage):
    """With `keep: all` that of the first epoch is needed to the end: the next start trains this epoch again."""
    whole = run_training(small_study, tmp_path / "whole", keep="all")
    cut = tmp_path / "cut"

    def harm():
        (checkpoint,) = cut.glob("state/*/checkpoints/epoch1-*")
        damage(checkpoint)
        return checkpoint

    def after_the_first_epoch(line):
        if line["update"] == 14:
            if moment == "while it is stopped":
                raise KeyboardInterrupt
            harm()

    with pytest.raises(KeyboardInterrupt if moment == "while it is stopped" else UserError) as refusal:
        run_training(small_study, cut, keep="all", observe=after_the_first_epoch)
    if moment == "while it is stopped":
        damaged = harm()
    else:
        damaged = next(cut.glob("state/*")) / "checkpoints" / sorted(whole.glob("checkpoints/epoch1-*"))[0].name
        assert str(damaged) in str(refusal.value) and not (cut / "run").exists()
    resumed = run_training(small_study, cut, keep="all")
    assert f"{damaged} is damaged" in caplog.text
    for file in ("history.jsonl", *(f"checkpoints/{path.name}" for path in whole.glob("checkpoints/*"))):
        assert file_hash(whole / file) == file_hash(resumed / file)


def test_a_history_that_changes_while_it_trains_is_not_published(small_study, tmp_path):
    """A later state knows what was written, not what the disk made of it."""
    whole = run_training(small_study, tmp_path / "whole")
    cut = tmp_path / "cut"

    def harm(line):
        if line["update"] == 14:
            (file,) = cut.glob("state/*/history.jsonl")
            with file.open("r+b") as harmed:
                harmed.write(file.read_bytes().replace(b"0", b"1", 1))

    with pytest.raises(UserError, match=r"history\.jsonl changed on the disk"):
        run_training(small_study, cut, observe=harm)
    assert not (cut / "run").exists()
    assert file_hash(run_training(small_study, cut) / "history.jsonl") == file_hash(whole / "history.jsonl")


def test_the_state_before_keeps_its_checkpoints(tmp_path, small_study):
    """Else a damaged newest state would cost the one before it, too."""
    model = build_model(small_study.spec("bert").model, 2, 100, 0, 1)
    workspace = Workspace(tmp_path)
    names = [f"epoch{epoch}-val_acc0.{epoch}000.safetensors" for epoch in (1, 2, 3)]
    for update, name in enumerate(names):
        workspace.save_checkpoint(name, model, {"epoch": update})
        workspace.save({"update": update}, {"weights": torch.randn(5)}, {}, [name])
    assert sorted(path.name for path in workspace.checkpoints.iterdir()) == names[1:]
    max(tmp_path.glob("state-*.pt")).unlink()
    state = Workspace(tmp_path).load()
    assert state is not None and list(state["checkpoints"]) == [names[1]]


def test_a_loss_that_is_not_finite_stops_the_run_and_says_what_to_change(small_study, tmp_path):
    with pytest.raises(UserError, match=r"(?s)update 2 at learning rate 1e\+30.*lost in update 1.*Lower the learning"):
        run_training(small_study, tmp_path, lr_policies={"constant": {"base_lr": 1e30}})
    assert not (tmp_path / "run").exists()
    (workspace,) = (tmp_path / "state").iterdir()
    assert len(list(workspace.glob("state-*.pt"))) == 1
    assert len((workspace / "history.jsonl").read_text().splitlines()) == 1


def test_a_target_batch_above_the_training_set_is_refused(small_study, tmp_path):
    """Where the config cannot know how many examples there will be, the training says so."""
    spec = small_study.spec("bert").model_copy(update={"target_batch_size": 200})
    with pytest.raises(UserError, match="target batch size 200 is above the 184 training examples"):
        train(spec, "code", SETTINGS, small_study.tokens("bert"), tmp_path / "run", tmp_path / "state", lambda _: None)


def test_a_damaged_checkpoint_is_named(trained, tmp_path):
    _, run = trained
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes((run / "checkpoints/best.safetensors").read_bytes()[:1000])
    with pytest.raises(UserError, match=r"broken\.safetensors"):
        load_checkpoint(broken, CPU)


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_manual_and_accelerate_are_equal_bit_for_bit(small_study, tmp_path, architecture):
    """Three epochs with dropout, a ragged last micro-batch in each window and a tail window of 8."""
    runs = [
        run_training(small_study, tmp_path / engine, architecture, engine=engine, budget={"epochs": 3})
        for engine in ("manual", "accelerate")
    ]
    manual, accelerate = (load_file(run / "checkpoints/last.safetensors") for run in runs)
    assert all(torch.equal(manual[name], accelerate[name]) for name in manual)
    assert (runs[0] / "history.jsonl").read_bytes() == (runs[1] / "history.jsonl").read_bytes()
