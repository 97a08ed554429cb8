"""Validating more often changes no weight, falls at exact updates, resumes bit for bit, and may choose the best."""

import json
from pathlib import Path

import pytest
from small import train_settings

from batchscope.evaluation.evaluate import evaluate
from batchscope.evaluation.spec import EvaluationSpec
from batchscope.files import read_json
from batchscope.provenance.fingerprint import file_hash
from batchscope.training.loop import train
from batchscope.training.spec import BudgetSpec, ValidationSpec
from batchscope.training.windows import validates_after, windows

SETTINGS = train_settings()
NAMES = ("checkpoints/best.safetensors", "checkpoints/last.safetensors")


def trained(small_study, folder: Path, settings=SETTINGS, observe=lambda line: None, **changes) -> Path:
    """One epoch of 11 updates of 16 reviews and a tail of 8."""
    spec = small_study.spec("bert", 16, budget={"epochs": 1}, **changes)
    train(spec, "code", settings, small_study.tokens("bert"), folder / "run", folder / "state", observe)
    return folder / "run"


def lines(run: Path, *kinds: str) -> list[dict]:
    history = map(json.loads, (run / "history.jsonl").read_text().splitlines())
    return [line for line in history if line["kind"] in kinds]


@pytest.fixture(scope="module")
def plain(small_study, tmp_path_factory):
    """Validated at the end of its epoch alone."""
    return trained(small_study, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def often(small_study, tmp_path_factory):
    """Validated after every update; any validation may choose."""
    folder = tmp_path_factory.mktemp("often")
    return trained(small_study, folder, validate_every={"updates": 1}, select_from="all")


def test_no_weight_and_no_other_line_changes(plain, small_study, tmp_path) -> None:
    every_third = trained(small_study, tmp_path, validate_every={"updates": 3})
    assert [line["update"] for line in lines(every_third, "validation")] == [3, 6, 9]
    assert lines(every_third, "update", "epoch") == lines(plain, "update", "epoch")
    for name in NAMES:
        assert file_hash(every_third / name) == file_hash(plain / name)


def test_all_validations_may_choose_where_the_config_says_so(plain, often, small_study) -> None:
    assert lines(often, "update") == lines(plain, "update")
    assert file_hash(often / NAMES[1]) == file_hash(plain / NAMES[1])
    reached = lines(often, "validation", "epoch")
    assert [line["update"] for line in reached] == list(range(1, 13))
    correct = [line["validation"]["correct"] for line in reached]
    facts = read_json(often / "train.json")
    best = reached[correct.index(max(correct))]
    assert (facts["best_update"], facts["best_validation"]) == (best["update"], best["validation"])
    assert facts["best_update"] < 12, "this small run is best before its end"
    assert len(list((often / "checkpoints").glob("epoch*"))) == 1
    checkpoints = {name: often / f"checkpoints/{name}.safetensors" for name in ("best", "last")}
    evaluate(EvaluationSpec(precision="float32"), small_study.tokens("bert"), checkpoints, often, "cpu")
    scores = read_json(often / "metrics.json")["validation"]
    assert scores["best"]["correct"] == best["validation"]["correct"]
    assert scores["last"]["correct"] == reached[-1]["validation"]["correct"]


def test_every_validation_has_its_time(often) -> None:
    facts = read_json(often / "train.json")
    times = facts["validation_times"]
    assert [entry["update"] for entry in times] == list(range(1, 13))
    seconds = [entry["seconds"] for entry in times]
    assert seconds == sorted(seconds) and seconds[-1] == pytest.approx(facts["training_seconds"])


class Cut(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize(("kind", "update"), [("validation", 7), ("update", 8)])
def test_a_run_cut_off_between_validations_ends_with_the_same_bytes(often, small_study, tmp_path, kind, update) -> None:
    def cut(line):
        if (line["kind"], line["update"]) == (kind, update):
            raise Cut

    often_changes = {"validate_every": {"updates": 1}, "select_from": "all", "settings": train_settings(save_every=0)}
    with pytest.raises(Cut):
        trained(small_study, tmp_path, observe=cut, **often_changes)
    resumed = trained(small_study, tmp_path, **often_changes)
    for name in ("history.jsonl", *NAMES):
        assert file_hash(resumed / name) == file_hash(often / name)
    assert {path.name for path in (resumed / "checkpoints").iterdir()} == {
        path.name for path in (often / "checkpoints").iterdir()
    }


@pytest.mark.parametrize(("batch", "every"), [(16, 40), (16, 16), (40, 30), (7, 100), (184, 50)])
def test_a_number_of_samples_is_due_with_the_window_that_reaches_it(batch: int, every: int) -> None:
    plan = list(windows(184, batch, BudgetSpec(epochs=2)))
    due = [window.samples for window in plan if validates_after(window, ValidationSpec(samples=every))]
    multiples = range(every, 2 * 184 + 1, every)
    first_at_or_after = {min(w.samples for w in plan if w.samples >= multiple) for multiple in multiples}
    assert due == sorted(first_at_or_after | {window.samples for window in plan if window.ends_epoch})
