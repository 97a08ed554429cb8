"""Branches at larger batches: factor 1 is the run itself, and what a training did not keep is replayed bit for bit."""

import json
import math
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from small import SmallStudy, train_settings

from batchscope.errors import UserError
from batchscope.hardware.device import pick_place
from batchscope.provenance.fingerprint import file_hash
from batchscope.training import branch as branches
from batchscope.training.branch import BranchedRun, branch, follow, updates_of
from batchscope.training.kept import KeptStates, kept_folder
from batchscope.training.loop import train
from batchscope.training.run import planned_windows
from batchscope.training.spec import BranchSpec, BudgetSpec
from batchscope.training.stop import Stopped
from batchscope.training.windows import branch_windows, update_at, windows

SPEC = BranchSpec(at=(48, 200), factors=(1, 4), samples=112)
"""The second point is in the second epoch of 184 examples; the branches of the first cross the end of the first one."""
CHANGES = {"noise_scale": "full", "schedule": {"name": "linear", "warmup": 0.1}}


class Trained:
    """A run of two epochs, with or without kept states."""

    def __init__(self, small: SmallStudy, folder: Path, spec: BranchSpec | None, model: str = "bert") -> None:
        self.folder, self.tokens, self.settings = folder, small.tokens(model), train_settings()
        self.training = small.spec(model, **CHANGES)
        train(self.training, "code", self.settings, self.tokens, self.run, self.state, branches=spec)

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def kept(self) -> Path:
        fingerprint = json.loads((self.run / "manifest.json").read_text())["fingerprint"]
        return kept_folder(self.state, fingerprint, pick_place("cpu", "float32"))

    def branch(self, spec: BranchSpec = SPEC, deadline: float | None = None) -> dict:
        branch(spec, self.training, "code", self.settings, self.tokens, self.run, self.state, deadline)
        return json.loads((self.run / "branches.json").read_text())


@pytest.fixture(scope="module")
def trained(small_study: SmallStudy, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run that keeps the states of both points, and the one at which the first point's branches end."""
    at = (*SPEC.at, SPEC.at[0] + SPEC.samples)
    return Trained(small_study, tmp_path_factory.mktemp("kept"), BranchSpec(at=sorted(at), factors=(1,), samples=16))


@pytest.fixture(scope="module")
def branched(trained: Trained) -> dict:
    """Its branches, from kept states."""
    return trained.branch()


def plan_of(examples: int = 100, batch: int = 8, **budget: int) -> list:
    return list(windows(examples, batch, BudgetSpec(**(budget or {"epochs": 3}))))


@pytest.mark.parametrize("factor", [1, 2, 3, 8, 50])
@pytest.mark.parametrize(("at", "samples"), [(0, 100), (40, 60), (96, 130), (150, 140), (280, 10)])
def test_all_branches_see_the_runs_examples_in_its_order(at: int, samples: int, factor: int) -> None:
    plan = plan_of()
    update = update_at(plan, at)
    begun = plan[update - 1].samples if update else 0
    assert begun >= at and (update < 2 or plan[update - 2].samples < at)
    found = branch_windows(plan, update, samples, factor)

    def examples(part: list) -> list[tuple[int, int]]:
        return [(window.epoch, row) for window in part for row in range(window.start, window.stop)]

    own = [window for window in plan[update:] if window.samples - window.examples < begun + samples]
    assert examples(found) == examples(own)
    assert [window.samples for window in found] == [
        begun + sum(window.examples for window in found[: number + 1]) for number in range(len(found))
    ]
    assert all(window.examples <= 8 * factor for window in found)
    first_of = {window.samples - window.examples: window.update for window in plan}
    assert [window.update for window in found] == [first_of[window.samples - window.examples] for window in found]
    if factor == 1:
        assert found == own
    for one, other in pairwise(found):  # only the end of an epoch or of the branch cuts a window short
        assert one.examples == 8 * factor or other.epoch == one.epoch + 1


def test_a_branch_beyond_the_end_of_the_run_is_refused_before_training(small_study: SmallStudy, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="beyond the end"):
        branch_windows(plan_of(), 3, 1000, 1)
    plan = planned_windows(small_study.spec("bert"), 184)
    for at, samples in ((369, 1), (300, 69)):
        with pytest.raises(UserError, match=rf"branch: {samples} samples from {at} on: \d+ samples are beyond the end"):
            KeptStates(tmp_path, plan, BranchSpec(at=(at,), factors=(1,), samples=samples))
    assert KeptStates(tmp_path, plan, BranchSpec(at=(300,), factors=(1,), samples=56)).updates == {20: 300}


def test_factor_1_is_the_run_itself_to_the_last_bit(trained: Trained) -> None:
    """Its lines of the history, and at its end the weights and the optimizer's state of the run."""
    history = updates_of(trained.run / "history.jsonl")
    run = BranchedRun(
        trained.training, trained.settings, pick_place("cpu", "float32"), trained.tokens, trained.folder / "own",
        lambda line: None, None,
    )  # fmt: skip
    begin, end = SPEC.at[0], SPEC.at[0] + SPEC.samples
    kept = KeptStates(trained.kept, run.plan, BranchSpec(at=(begin, end), factors=(1,), samples=16))
    with run.stop, run.telemetry:
        run.ledger.physical_batch_size = 6
        run.choose_micro_step()
        for factor in (4, 1):  # what an earlier branch left does not matter
            state = kept.load(min(kept.updates))
            assert state is not None
            found = follow(run, state, trained.training, SPEC.samples, factor, history)
    expected = kept.load(max(kept.updates))
    assert found["equals_run"] is True and len(found["updates"]) == max(kept.updates) - min(kept.updates)
    assert expected is not None
    ours = run.model.state_dict()
    assert ours.keys() == expected["model"].keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in expected["model"].items())
    moments, theirs = run.optimizer.state_dict()["state"], expected["optimizer"]["state"]
    assert all(torch.equal(moments[i][name], theirs[i][name]) for i in theirs for name in theirs[i])
    end = max(kept.updates)
    other = history | {end: history[end] | {"loss": math.nextafter(history[end]["loss"], math.inf)}}
    with run.stop:
        state = kept.load(min(kept.updates))
        assert state is not None
        assert follow(run, state, trained.training, SPEC.samples, 1, other)["equals_run"] is False, "one bit differs"


def test_a_branch_has_k_times_the_batch_and_root_k_times_the_rate(trained: Trained, branched: dict) -> None:
    file = branched
    history = updates_of(trained.run / "history.jsonl")
    assert [(p["at"], p["update"], p["samples"], p["state"]) for p in file["points"]] == [
        (48, 3, 48, "kept"),
        (200, 13, 200, "kept"),
    ]
    for point in file["points"]:
        one, four = point["branches"]
        assert one["equals_run"] is True and four["equals_run"] is None
        assert (four["factor"], four["target_batch_size"]) == (4, 64)
        assert sum(u["examples"] for u in one["updates"]) == sum(u["examples"] for u in four["updates"])
        of_samples = {line["samples"] - line["examples"]: line["lr"] for line in history.values()}
        for update in four["updates"]:
            assert update["lr"] == pytest.approx(2 * of_samples[update["samples"] - update["examples"]], rel=1e-12)
        assert four["updates"][0]["loss"] != one["updates"][0]["loss"]
        assert not one["diverged"] and not four["diverged"]
    assert not (trained.kept / "replay").exists() and not (trained.kept / "done").exists()


def test_what_the_training_did_not_keep_is_replayed_to_the_same_bits(
    trained: Trained, branched: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Asking for branches later changes no file of the finished run, and gives what keeping would have given."""
    other = Trained.__new__(Trained)
    other.__dict__ |= trained.__dict__ | {"folder": tmp_path}
    shutil.copytree(trained.run, tmp_path / "run")
    before = {path: file_hash(path) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    found = other.branch()
    assert [point.pop("state") for point in found["points"]] == ["replayed", "replayed"]
    assert found["points"] == [{k: v for k, v in point.items() if k != "state"} for point in branched["points"]]
    assert "bit for bit" not in caplog.text
    after = {path: file_hash(path) for path in before if path.name != "branches.json"}
    assert after.items() <= before.items()
    for state in other.kept.glob("state-*.pt"):
        assert KeptStates(trained.kept, [], None).load(int(state.name.split("-")[1])) is not None
    state = next(other.kept.glob("state-000000013-*.pt"))
    state.write_bytes(b"damaged")
    again = other.branch(SPEC.model_copy(update={"factors": (1,), "samples": 16}))
    assert [point["state"] for point in again["points"]] == ["kept", "replayed"], "from the nearest state"
    assert "is damaged" in caplog.text


def test_the_beginning_of_a_run_can_be_branched(trained: Trained) -> None:
    (point,) = trained.branch(BranchSpec(at=(0,), factors=(1, 2), samples=32))["points"]
    assert (point["update"], point["samples"], point["state"]) == (0, 0, "replayed")
    assert point["branches"][0]["equals_run"] is True


def test_a_branch_that_diverges_is_told_and_hurts_no_other(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = BranchSpec(at=(48,), factors=(1, 2, 4), samples=64)
    real = branches.branched_spec
    rates = {2: 1e38}
    monkeypatch.setattr(
        branches, "branched_spec",
        lambda t, k: real(t, k).model_copy(update={"learning_rate": rates[k]}) if k in rates else real(t, k),
    )  # fmt: skip
    (point,) = trained.branch(spec)["points"]
    one, two, four = point["branches"]
    assert two["diverged"] and len(two["updates"]) < 4
    assert not one["diverged"] and not four["diverged"] and one["equals_run"]
    monkeypatch.undo()
    (again,) = trained.branch(spec)["points"]
    assert again["branches"][2] == four


def test_a_stopped_verb_goes_on_with_the_branches_that_are_left(
    trained: Trained, branched: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    (trained.run / "branches.json").unlink()
    real, begun = branches.follow, []

    def stop_at_the_third(*arguments: object) -> object:
        begun.append(arguments)
        if len(begun) == 3:
            raise Stopped("asked to")
        return real(*arguments)

    monkeypatch.setattr(branches, "follow", stop_at_the_third)
    with pytest.raises(Stopped, match="asked to"):
        trained.branch()
    with pytest.raises(Stopped, match="wall-time limit"):
        trained.branch(deadline=1.0)
    assert not (trained.run / "branches.json").exists()
    assert trained.branch() == branched
    assert len(begun) == 6, "two of four were finished before, and not begun again"
