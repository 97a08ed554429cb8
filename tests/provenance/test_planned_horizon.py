"""What a plan says of Adam's horizon before anything is trained."""

from pathlib import Path

import pytest
from jobs import jobs_of
from small import tiny_config

from batchscope.files import write_json
from batchscope.provenance.forecast import forecast
from batchscope.provenance.horizon import foresee
from batchscope.provenance.manifests import run_fingerprint
from batchscope.provenance.plan import PlannedJob
from batchscope.provenance.reuse import hashes
from batchscope.training.spec import TrainSpec

REFERENCE = {
    "data": {"source": "synthetic", "synthetic": {"reviews": 50_000}},
    "target_batch_sizes": [64, 256, 1024],
    "lr_policies": {"constant": {"base_lr": 5e-5}},
    "budget": {"epochs": 5},
    "models": {"bert": {"architecture": "bert"}},
}


def test_the_reference_study_is_warned_of_before_it_is_paid_for(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, tiny_config(**REFERENCE)).read()
    foreseen = foresee(jobs, jobs.jobs)
    assert (foreseen.examples, foreseen.known) == (40_000, False)
    assert [
        (one.target_batch_size, round(one.refreshes, 1)) for one in sorted(foreseen.horizons, key=lambda x: x[3])
    ] == [
        (64, 3.1),
        (256, 0.8),
        (1024, 0.2),
    ]
    said, basis = foreseen.notes
    assert "2 of 3 cells" in said
    assert "40,000 training examples, by the config's shares" in basis
    assert foresee(jobs, ["tables"]).notes == [], "nothing is trained, so nothing is to be warned of"


def test_only_cells_that_will_train_are_audited_against_the_whole_study(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, tiny_config(**REFERENCE)).read()
    (one,) = foresee(jobs, ["train/bert/bs1024/constant/seed1", "tables"]).horizons
    assert (one.target_batch_size, one.reference_batch_size) == (1024, 64)


def test_the_split_on_disk_decides_and_an_unread_source_is_said_to_be_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_study
) -> None:
    jobs = jobs_of(tmp_path / "split", tiny_config(), small_study).read()
    monkeypatch.chdir(tmp_path / "split")
    foreseen = foresee(jobs, jobs.jobs)
    assert (foreseen.examples, foreseen.known) == (184, True)
    reviews = tmp_path / "reviews.csv"
    reviews.write_text("text,label\na,0\n")
    monkeypatch.chdir(tmp_path)
    unread = jobs_of(tmp_path / "unread", tiny_config(data={"source": str(reviews), "max_length": 32})).read()
    (said,) = foresee(unread, unread.jobs).notes
    assert "is known once the data is read" in said


@pytest.mark.parametrize("budgets", [{"long": {"epochs": 2}, "short": {"epochs": 1}}])
def test_a_finished_study_of_one_budget_is_found_when_a_second_one_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_study, budgets: dict[str, object]
) -> None:
    """The folder of its runs changes, their fingerprint does not."""
    monkeypatch.chdir(tmp_path)
    before = jobs_of(tmp_path, tiny_config(), small_study)
    run = before.layout.run("bert/bs16/constant/seed1")
    spec = before.read().spec("train/bert/bs16/constant/seed1", TrainSpec)
    (run / "checkpoints").mkdir(parents=True)
    write_json(run / "train.json", {"device": "cpu", "seconds": 1.0, "samples": 368, "train_examples": 184})
    fingerprint = run_fingerprint(spec, before.codes["train"], before.layout.tokens("bert"))
    manifest = {"fingerprint": fingerprint, "files": hashes(run), "spec": spec.plain(), "reused_from": None}
    manifest |= {"precision": "float32", "device_type": "cpu"}
    write_json(run / "manifest.json", manifest)
    config = tiny_config(budgets=budgets)
    del config["budget"]
    after = jobs_of(tmp_path, config).read()
    names = [f"train/bert/bs16/constant/{budget}/seed1" for budget in budgets]
    planned = [PlannedJob("train", {}, name, [{"kind": "new"}]) for name in names]
    forecast(planned, after)
    assert [job.reuses for job in planned] == ["results/tiny/runs/bert/bs16/constant/seed1", None]
