"""`batchscope verify` finds what was changed in a finished run, and nothing in one that was not."""

import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchscope.cli.main import main
from batchscope.evaluation.evaluate import CHECKPOINTS, SPLITS, evaluate
from batchscope.evaluation.spec import EvaluationSpec
from batchscope.files import read_json, write_json
from batchscope.provenance.layout import Layout
from batchscope.provenance.stages import write_record
from batchscope.provenance.verify import verify_run
from batchscope.training.loop import train
from batchscope.training.spec import TrainSettings

RUN = "runs/bert/bs16/constant/seed1"


@pytest.fixture(scope="module")
def original(small_study, tmp_path_factory):
    """A study with one run, trained and evaluated."""
    folder = tmp_path_factory.mktemp("verify") / "study"
    shutil.copytree(small_study.folder, folder)
    settings = TrainSettings(physical_batch_size=6, device="cpu")
    spec = small_study.spec("bert", budget={"epochs": 1})
    train(spec, "", settings, folder / "tokens/bert", folder / RUN, folder / "state")
    checkpoints = {name: folder / RUN / f"checkpoints/{name}.safetensors" for name in CHECKPOINTS}
    evaluate(EvaluationSpec(precision="float32"), folder / "tokens/bert", checkpoints, folder / RUN, "cpu")
    return folder


@pytest.fixture
def study(original, tmp_path):
    """A copy to do harm to."""
    shutil.copytree(original, tmp_path / "study")
    return tmp_path / "study"


def test_a_run_as_it_was_made_passes(study, capsys):
    checks = verify_run(study / RUN, "cpu")
    assert len(checks) == 9 and all(check.passed for check in checks)
    main(["verify", "--all", str(study), "--device", "cpu"])
    assert "WRONG" not in capsys.readouterr().out


def change_metric(study, name, change):
    metrics = read_json(study / RUN / "metrics.json")
    metrics["test"]["best"][name] += change
    write_json(study / RUN / "metrics.json", metrics)


def change_predictions(study, change):
    path = study / RUN / "predictions.parquet"
    table = pq.read_table(path)
    logits = table["logit_0"].to_numpy().copy()
    logits[-1] += change
    pq.write_table(table.set_column(table.column_names.index("logit_0"), "logit_0", pa.array(logits)), path)


def flip_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda study: change_metric(study, "correct", 1), "correct is"),
        (lambda study: change_metric(study, "loss", 1e-3), "loss is"),
        (lambda study: change_predictions(study, np.float32(0.01)), "metrics.json"),
        (lambda study: flip_byte(study / RUN / "checkpoints/best.safetensors"), "best.safetensors"),
        (lambda study: flip_byte(study / "tokens/bert/test.arrow"), "test.arrow"),
        (lambda study: (study / RUN / "history.jsonl").unlink(), "history.jsonl"),
    ],
    ids=["count", "loss", "logit", "checkpoint", "tokens", "missing file"],
)
def test_harm_is_named(study, capsys, harm, named):
    harm(study)
    with pytest.raises(SystemExit, match="1 of 1 runs are not what they say"):
        main(["verify", str(study / RUN), "--device", "cpu"])
    wrong = [line for line in capsys.readouterr().out.splitlines() if "WRONG" in line]
    assert wrong and named in wrong[0]


def test_numbers_of_other_weights_are_noticed(study):
    """Metrics and predictions that agree with each other, but not with the checkpoint."""
    predictions = pq.read_table(study / RUN / "predictions.parquet")
    columns = {name: predictions[name] for name in predictions.column_names}
    columns["logit_0"], columns["logit_1"] = predictions["logit_1"], predictions["logit_0"]
    pq.write_table(pa.table(columns), study / RUN / "predictions.parquet")
    metrics = read_json(study / RUN / "metrics.json")
    from batchscope.evaluation.metrics import measure

    table = pa.table(columns).to_pandas()
    for split in SPLITS:
        scores = metrics[split]
        for checkpoint in scores:
            rows = table[(table.split == split) & (table.checkpoint == checkpoint)]
            scores[checkpoint] = measure(rows[["logit_0", "logit_1"]].to_numpy(), rows.label.to_numpy())
    write_json(study / RUN / "metrics.json", metrics)
    failed = [check for check in verify_run(study / RUN, "cpu") if not check.passed]
    assert failed and all("from the checkpoint" in check.subject for check in failed)
    assert not any("trained after" in check.detail for check in failed)
    later = (study / RUN / "metrics.json").stat().st_mtime + 1
    os.utime(study / RUN / "manifest.json", (later, later))
    failed = [check for check in verify_run(study / RUN, "cpu") if not check.passed]
    assert failed and all("trained after this evaluation: start the workflow" in check.detail for check in failed)


def test_a_folder_that_is_no_run_is_explained(tmp_path):
    with pytest.raises(SystemExit, match="not a finished run"):
        main(["verify", str(tmp_path)])
    with pytest.raises(SystemExit, match="has no finished run"):
        main(["verify", "--all", str(tmp_path)])


def test_the_manifest_tells_where_a_run_comes_from(study):
    manifest = read_json(study / RUN / "manifest.json")
    assert manifest["spec"]["target_batch_size"] == 16 and len(manifest["fingerprint"]) == 16
    assert set(manifest["tokens"]) == {"train", "validation", "test"}
    assert {"checkpoints/best.safetensors", "checkpoints/last.safetensors", "history.jsonl", "train.json"} <= set(
        manifest["files"]
    )
    assert manifest["initial_weights"] == {"random": "bert"} and manifest["driver"] is None
    assert manifest["reused_from"] is None and json.dumps(manifest["versions"]["torch"])


def test_a_changed_tokenizer_is_found(study):
    write_record(Layout(study), "tokenize/bert", "{}", "c" * 16)
    with (study / "tokens/bert/tokenizer/tokenizer.json").open("a") as file:
        file.write(" ")
    (check,) = verify_run(study / RUN, "cpu")
    assert not check.passed and "tokenizer/tokenizer.json" in check.detail
