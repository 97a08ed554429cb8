"""The fabricated studies of these tests have the files that the code writes: every key, and no other."""

import json
from pathlib import Path

import fabricate
import pytest
from pydantic import ValidationError
from record_models import model_of

from batchscope.certificate.records import Certificate
from batchscope.data.records import Audit, ReviewsFile
from batchscope.evaluation.records import Metrics
from batchscope.insight.records import AttentionMeasures
from batchscope.provenance.records import RunManifest
from batchscope.training.records import EpochLine, TrainFacts, UpdateLine, ValidationLine

RECORDS = {
    "data/audit.json": Audit,
    "data/reviews.json": ReviewsFile,
    "certificates/*.json": Certificate,
    "runs/**/train.json": TrainFacts,
    "runs/**/metrics.json": Metrics,
    "runs/**/manifest.json": RunManifest,
    "runs/**/attention/measures.json": AttentionMeasures,
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    spec = fabricate.spec(target_batch_sizes=[64], seeds=[1])
    return fabricate.study_folder(folder, spec, examples=128, no_attention={"bert": "It gives none."})


@pytest.mark.parametrize("pattern", RECORDS)
def test_fabricated_files_are_those_of_the_records(study: Path, pattern: str) -> None:
    found = sorted(study.glob(pattern))
    assert found
    for path in found:
        model_of(RECORDS[pattern]).model_validate_json(path.read_bytes())


def test_fabricated_histories_are_those_of_the_records(tmp_path: Path) -> None:
    within = {"validate_every": {"updates": 2}}
    spec = fabricate.spec(target_batch_sizes=[16], seeds=[1], noise_scale="cheap", **within)
    kinds = {"update": UpdateLine, "epoch": EpochLine, "validation": ValidationLine}
    for path in fabricate.study_folder(tmp_path, spec, examples=128).glob("runs/**/history.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            model_of(kinds[json.loads(line)["kind"]]).model_validate_json(line)


def test_a_key_that_no_code_writes_is_refused(study: Path) -> None:
    text = (study / "data/reviews.json").read_text(encoding="utf-8")
    for wrong in (text.replace('"title"', '"heading"'), text.replace('{"rule"', '{"tail_windows": 1, "rule"')):
        with pytest.raises(ValidationError):
            model_of(ReviewsFile).model_validate_json(wrong)
