"""A finished run put to use: predictions are those of the study, streamed in constant memory; one text explained."""

import csv
import json
import os
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from memory_peak import measured

from batchscope.cli.main import main
from batchscope.data.tables import read_corpus
from batchscope.errors import UserError
from batchscope.evaluation.counts import log_softmax
from batchscope.evaluation.evaluate import CHECKPOINTS, evaluate
from batchscope.evaluation.spec import EvaluationSpec
from batchscope.files import DamagedFileError, write_json
from batchscope.insight.finished_run import open_run, run_folder
from batchscope.insight.rollout import pooled_rollout, rollout
from batchscope.provenance.layout import Layout
from batchscope.provenance.stages import write_record
from batchscope.training.loop import train
from batchscope.training.spec import TrainSettings

RUN = "bert/bs16/constant/seed1"


@pytest.fixture(scope="module")
def results(small_study, tmp_path_factory):
    """A folder with ``results/tiny``: one run, trained and evaluated."""
    folder = tmp_path_factory.mktemp("use")
    study = folder / "results/tiny"
    shutil.copytree(small_study.folder, study)
    tokens, run = study / "tokens/bert", study / "runs" / RUN
    write_json(tokens / "manifest.json", {"spec": {"max_length": 32, "truncation": "head"}})
    settings = TrainSettings(physical_batch_size=6, device="cpu")
    train(small_study.spec("bert", budget={"epochs": 1}), "", settings, tokens, run, folder / "state")
    checkpoints = {name: run / f"checkpoints/{name}.safetensors" for name in CHECKPOINTS}
    evaluate(EvaluationSpec(precision="float32"), tokens, checkpoints, run, "cpu")
    return folder


@pytest.fixture
def here(results, monkeypatch):
    monkeypatch.chdir(results)
    return results


def test_predictions_of_the_test_reviews_are_the_studys(here, tmp_path, capsys):
    study = here / "results/tiny"
    made = pd.read_parquet(study / "runs" / RUN / "predictions.parquet")
    made = made[(made.split == "test") & (made.checkpoint == "best")]
    texts = read_corpus(study / "data/corpus.parquet").texts_of(made.example_id.to_numpy())
    source, output = tmp_path / "new.jsonl", tmp_path / "out.csv"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    main(["predict", f"tiny/{RUN}", str(source), "--text", "text", "--output", str(output), "--device", "cpu"])
    found = pd.read_csv(output)
    logits = made[["logit_0", "logit_1"]].to_numpy()
    assert found[["p_negative", "p_positive"]].to_numpy() == pytest.approx(np.exp(log_softmax(logits)), abs=2e-6)
    assert list(found.prediction) == [("negative", "positive")[number] for number in logits.argmax(1)]
    assert (found.probability == found[["p_negative", "p_positive"]].max(axis=1)).all()
    assert f"{len(texts)} predictions for {len(texts)} rows" in capsys.readouterr().out


def test_a_row_without_text_keeps_its_place(here, tmp_path, capsys):
    source = tmp_path / "new.csv"
    source.write_text("id,text\n1,a quiet film\n2,\n3,   \n4," + "a fine film " * 40 + "\n")
    main(["predict", str(run_folder(f"tiny/{RUN}")), str(source), "--text", "text", "--device", "cpu"])
    with (tmp_path / "new.csv.predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["note"] for row in rows] == ["", "no text", "no text", ""]
    assert [row["cut"] for row in rows] == ["false", "", "", "true"]
    assert rows[1]["prediction"] == "" and rows[3]["prediction"] in ("negative", "positive")
    said = capsys.readouterr().out
    assert "2 predictions for 4 rows, 1 of them cut to 32 tokens; 2 rows (no text; the first is row 2) got none" in said


def test_what_cannot_be_used_is_refused(here, tmp_path):
    source = tmp_path / "new.csv"
    source.write_text("text\nx\n")
    with pytest.raises(SystemExit, match="there is no finished run tiny/bert/bs99"):
        main(["predict", "tiny/bert/bs99/constant/seed1", str(source), "--text", "text"])
    with pytest.raises(SystemExit, match="is the file that is read"):
        main(["predict", f"tiny/{RUN}", str(source), "--text", "text", "--output", str(source), "--device", "cpu"])
    with pytest.raises(SystemExit, match="the text is empty"):
        main(["explain", f"tiny/{RUN}", "  ", "--device", "cpu"])
    with pytest.raises(SystemExit, match="the text is not UTF-8"):
        main(["explain", f"tiny/{RUN}", os.fsdecode(b"caf\xe9"), "--device", "cpu"])
    shutil.copytree("results", tmp_path / "results")
    tokens = tmp_path / "results/tiny/tokens/bert"
    shutil.rmtree(tokens / "tokenizer")
    with pytest.raises(UserError, match=r"cannot load .*tokens/bert/tokenizer: (.|\n)*Start the workflow"):
        open_run(tmp_path / "results/tiny/runs" / RUN, "cpu")
    (tokens / "test.arrow").replace(tokens / "validation.arrow")
    with pytest.raises(UserError, match="does not hold the tokens that bert/bs16/constant/seed1 was trained with"):
        open_run(tmp_path / "results/tiny/runs" / RUN, "cpu")
    (tmp_path / "results/tiny/runs" / RUN / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match="cannot read the manifests of"):
        open_run(tmp_path / "results/tiny/runs" / RUN, "cpu")


PEAK = """
import sys
from pathlib import Path
from memory_peak import peak_of
import torch
torch.set_num_threads(1)
from batchscope.insight import predict_texts
from batchscope.insight.finished_run import open_run
from batchscope.insight.predict_texts import predict_file
predict_texts.ROWS_AT_ONCE = 256
run = open_run(Path(sys.argv[1]), "cpu")
folder = Path(sys.argv[2])

def peak_of_rows(count):
    with (folder / f"{count}.csv").open("w") as file:
        file.writelines(["text\\n", *["a fine film " * 200 + "\\n"] * count])
    return peak_of(lambda: predict_file(run, folder / f"{count}.csv", "text", folder / "out.csv"))

_, few, many = (peak_of_rows(count) for count in (256, 512, 3072))
print(many - few)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_predict_needs_as_much_memory_for_many_rows_as_for_few(here, tmp_path):
    run = str(here / "results/tiny/runs" / RUN)
    assert measured(PEAK, run, str(tmp_path)) < 3 * 2**20, "the texts of 2,560 more rows have 6 MB"


def test_one_text_is_explained(here, tmp_path, capsys):
    main(["explain", f"tiny/{RUN}", "a quiet film", "--output", str(tmp_path), "--device", "cpu"])
    said = capsys.readouterr().out
    assert re.search(r"^(negative|positive): 0\.\d{4}$", said, re.M) and "Most rollout attention" in said
    names = [f"{name}.{form}" for name in ("last", "all", "rollout") for form in ("png", "svg")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert all((tmp_path / name).stat().st_size > 1000 for name in names)


def reference_rollout(weights):
    """Path by path: from an output position down through the layers, each step half attention, half itself."""
    layers, n = weights.shape[:2]

    def reaches(layer, position, token):
        if layer < 0:
            return float(position == token)
        step = [weights[layer][position][key] / 2 + (key == position) / 2 for key in range(n)]
        return sum(share * reaches(layer - 1, key, token) for key, share in enumerate(step))

    return np.array([[reaches(layers - 1, position, token) for token in range(n)] for position in range(n)])


def test_rollout_is_the_sum_over_paths():
    weights = np.random.default_rng(0).dirichlet(np.ones(4), size=(3, 4))
    assert rollout(weights) == pytest.approx(reference_rollout(weights))
    assert pooled_rollout(weights) == pytest.approx(reference_rollout(weights).mean(0))
    assert rollout(np.tile(np.eye(4), (3, 1, 1))) == pytest.approx(np.eye(4))
    assert pooled_rollout(np.full((2, 4, 4), 0.25)) == pytest.approx(np.full(4, 0.25))


@pytest.mark.parametrize("file", [f"runs/{RUN}/checkpoints/best.safetensors", "tokens/bert/tokenizer/tokenizer.json"])
def test_a_changed_model_or_tokenizer_predicts_nothing(results, tmp_path, file):
    """A changed bit of a weight, or another vocabulary, gives other probabilities and no error."""
    study = tmp_path / "tiny"
    shutil.copytree(results / "results/tiny", study)
    layout = Layout(study)
    for job in (f"train/{RUN}", "tokenize/bert"):
        write_record(layout, job, "{}", "c" * 16)
    open_run(study / "runs" / RUN, "cpu")
    content = bytearray((study / file).read_bytes())
    content[-8] ^= 1
    (study / file).write_bytes(content)
    with pytest.raises(DamagedFileError, match=rf"{file} is damaged \(it is not as the job"):
        open_run(study / "runs" / RUN, "cpu")
