"""What a reader must keep in mind is said beside the answer, and only where it applies."""

from pathlib import Path
from typing import Any

import fabricate
import pandas as pd
import pytest

from batchscope.report.answer import answer
from batchscope.report.cautions import cautions
from batchscope.report.finished import Finished
from batchscope.report.spec import ReportSpec
from batchscope.report.tables import summarise, write_tables
from batchscope.report.trust import uncertified_in_words
from batchscope.statistics.conclusions import conclude

SPEC = fabricate.spec(models={"bert": {"architecture": "bert"}}, lr_policies={"constant": {"base_lr": 1e-3}})
SMALLEST, LARGEST = "bert/bs16/constant/seed1", "bert/bs256/constant/seed2"


def told(folder: Path, spec: ReportSpec = SPEC, **story: Any) -> tuple[str, str]:
    """The headline, and the cautions as one text."""
    write_tables(spec, fabricate.study_folder(folder, spec, examples=256, **story))
    study = Finished.read(spec, folder)
    found = conclude(study.findings)
    assert found is not None
    noted = cautions(study.results, found.claims, study.audit, study.reviews["baseline"], study.provenance)
    said = [caution.text for caution in noted]
    said += uncertified_in_words(study.certificates, study.provenance)
    told = answer(spec, study.results, summarise(study.results), found)
    return f"{told.headline} {told.sentences[0]}", "\n".join(said)


def test_a_sound_study_has_its_yardsticks_alone(tmp_path: Path) -> None:
    one = {"models": {"bert": {"architecture": "bert"}}, "lr_policies": {"constant": {"base_lr": 1e-3}}}
    _, said = told(tmp_path, fabricate.spec(**one, seeds=[1, 2, 3]), crossing=0, test=900)
    assert said.startswith("For comparison, on the same test reviews: bag of words 78.0% and the class negative")
    assert "\n" not in said


def test_two_seeds_are_called_few(tmp_path: Path) -> None:
    _, said = told(tmp_path, crossing=0, test=900)
    assert said.startswith("No cell has more than two seeds. Their scatter is the difference of two runs")


def test_a_collapsed_and_a_diverged_run_are_named(tmp_path: Path) -> None:
    headline, said = told(tmp_path, effect=0.25, collapsed=[LARGEST], diverged=[SMALLEST, LARGEST])
    assert "2 of 6 runs did not learn: bert, 16, constant, seed 1 (its training loss ended above that of guess" in said
    assert (
        "bert, 256, constant, seed 2 (predicts positive for every test review and its training loss ended above" in said
    )
    assert "They count in all means. 2 of 2 contrasts include such a run and have no verdict." in said
    assert headline == (
        "Nothing can be said: every contrast includes a run that did not learn. "
        "2 of 2 contrasts include a run that did not learn: they are not read as an effect of the batch size."
    )


def test_one_faulty_run_is_singular(tmp_path: Path) -> None:
    headline, said = told(tmp_path, diverged=[LARGEST])
    assert "1 of 6 runs did not learn" in said
    assert "It counts in all means. 1 of 2 contrasts includes such a run and has no verdict." in said
    assert "1 of 2 contrasts includes a run that did not learn: it is not read as an effect" in headline


def test_duplicates_of_test_reviews_are_counted(tmp_path: Path) -> None:
    _, said = told(tmp_path, crossing=41)
    shares = "41 (13.67%) in train and 41 (13.67%) in validation"
    assert f"Of 300 test reviews, the same texts are in other splits: {shares}." in said


def test_unbalanced_classes_are_named_with_their_share(tmp_path: Path) -> None:
    _, said = told(tmp_path, classes=["bill", "outage", "praise"], shares=(0.08, 0.8, 0.12), effect=0.1)
    assert "80.0% of the test reviews are outage" in said
    assert "bag of words 78.0% and the class outage for every review 80.0%. 6 runs do no better:" in said


@pytest.mark.parametrize("what", ["precision", "device"])
def test_runs_on_other_arithmetic_are_flagged(tmp_path: Path, what: str) -> None:
    _, said = told(tmp_path, manifests={SMALLEST: {what: "something else"}})
    assert f"Runs differ in {what}: something else (1 run) and " in said
    assert "(5 runs); something else: bert, 16, constant, seed 1." in said
    assert "2 of 2 contrasts are between such runs" in said


def test_runs_on_another_kind_of_device_than_the_certificate_are_named(tmp_path: Path) -> None:
    _, said = told(tmp_path, manifests={SMALLEST: {"device_type": "cuda", "precision": "bfloat16"}})
    assert "bert is certified in float32 on cpu, and 1 of its 6 runs trained in bfloat16 on cuda." in said


def test_predictions_from_another_device_are_flagged(tmp_path: Path) -> None:
    _, said = told(tmp_path, predicted_on={SMALLEST: "NVIDIA H100"})
    assert "Runs differ in the device of their predictions: NVIDIA H100 (1 run) and cpu (5 runs)" in said


def test_runs_of_other_libraries_are_flagged(tmp_path: Path) -> None:
    versions = {"versions": {"python": "3.11.7", "torch": "2.12.0"}}
    _, said = told(tmp_path, manifests={SMALLEST: versions})
    assert "Runs differ in their version of torch: 2.12.0 (1 run) and 2.13.0 (5 runs)" in said
    assert "version of python" not in said


def test_what_was_left_out_is_counted(tmp_path: Path) -> None:
    _, said = told(tmp_path, left_out=[(".ipynb_checkpoints", "hidden folder")])
    assert "1 part of the data source was not read: see Data." in said


def test_a_run_that_collapsed_after_its_best_epoch_is_named(tmp_path: Path) -> None:
    write_tables(SPEC, fabricate.study_folder(tmp_path, SPEC, examples=256))
    study = Finished.read(SPEC, tmp_path)
    late = study.results.assign(constant_prediction_last=pd.Series(["positive", *[None] * 5], dtype=object))
    said = cautions(late, [], study.audit, study.reviews["baseline"], study.provenance)
    assert (
        "1 of 6 runs did not learn: bert, 16, constant, seed 1 (predicts positive for every test review after"
        in said[0].text
    )
