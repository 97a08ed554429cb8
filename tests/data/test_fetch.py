"""What `batchscope fetch` takes from a hub, jobs find with the hub off: real clients, a real server on the loopback."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from encoders import tiny_encoder
from hub_server import Hub, hub_server
from jobs import jobs_of

from batchscope.config.study import Study
from batchscope.data.fetch import Item, _check_space, wanted
from batchscope.data.hub import _explain
from batchscope.data.tokenizer import trained_tokenizer
from batchscope.errors import UserError

NOWHERE = "http://127.0.0.1:9"
CARD = """---
configs:
- config_name: plain_text
  default: true
  data_files:
  - {split: train, path: plain_text/train-*}
  - {split: test, path: plain_text/test-*}
  - {split: unsupervised, path: plain_text/unsupervised-*}
dataset_info:
  config_name: plain_text
  features:
  - {name: text, dtype: string}
  - {name: label, dtype: {class_label: {names: {'0': neg, '1': pos}}}}
---
"""


def write_data_set(folder: Path, reviews: int) -> None:
    """As IMDB stands on the hub: a card that names files and classes, one file per split, one of them unlabelled."""
    (folder / "plain_text").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    for split in ("train", "test", "unsupervised"):
        table = pa.table(
            {
                "text": [f"{split} {number}: a {('poor', 'fine')[number % 2]} film" for number in range(reviews)],
                "label": [-1 if split == "unsupervised" else number % 2 for number in range(reviews)],
            }
        )
        pq.write_table(table, folder / "plain_text" / f"{split}-00000-of-00001.parquet")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the hub serves."""
    folder = tmp_path_factory.mktemp("hub")
    tokenizer = trained_tokenizer("bert", 300, ["a poor film", "a fine film"])
    tokenizer.save_pretrained(folder / "tiny")
    tiny_encoder("bert", vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id).save_pretrained(
        folder / "tiny"
    )
    (folder / "tiny/onnx").mkdir()
    for useless in ("pytorch_model.bin", "onnx/model.onnx", "onnx/config.json"):
        (folder / "tiny" / useless).write_bytes(b"the same weights again")
    write_data_set(folder / "first", 60)
    write_data_set(folder / "second", 80)
    (folder / "bare").mkdir()
    (folder / "bare/config.json").write_text("{}")
    return folder


@pytest.fixture
def hub(folders: Path) -> Iterator[Hub]:
    with hub_server() as running:
        running.add("models/someone/tiny", folders / "tiny", "main")
        running.add("models/someone/bare", folders / "bare", "main")
        running.add("datasets/someone/reviews", folders / "first", "v1")
        running.add("datasets/someone/reviews", folders / "second", "main")
        yield running


def config(**changes: Any) -> dict[str, Any]:
    return {
        "study": "fetched",
        "data": {"source": "someone/reviews", "max_length": 16},
        "models": {"tiny": {"checkpoint": "someone/tiny"}},
        "target_batch_sizes": [8],
        "lr_policies": {"constant": {"base_lr": 1e-5}},
        "budget": {"updates": 1},
        "precision": "float32",
        "device": "cpu",
    } | changes


def batchscope(*arguments: object, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Run a verb with the hub on, unless ``environment`` says otherwise; None takes a variable away."""
    given = {"HF_HUB_OFFLINE": None, "HF_DATASETS_OFFLINE": None, "HF_HUB_CACHE": None} | environment
    return subprocess.run(
        [sys.executable, "-m", "batchscope", *map(str, arguments)],
        env={name: value for name, value in (os.environ | given).items() if value is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )


def fetch(hub: Hub, folder: Path, *options: object, **changes: Any) -> subprocess.CompletedProcess[str]:
    (folder / "config.json").write_text(json.dumps(config(**changes)))
    home = str(folder / "home")
    return batchscope("fetch", "--configfile", folder / "config.json", *options, HF_ENDPOINT=hub.url, HF_HOME=home)


def offline(folder: Path) -> dict[str, str]:
    """What `fetch` tells the user to set, and an address where no hub is."""
    return {"HF_HOME": str(folder), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_ENDPOINT": NOWHERE}


def succeed(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stdout
    return result.stdout


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    """The message of a verb that fails as it should."""
    said = result.stdout + (result.stderr or "")
    assert result.returncode == 1 and "Traceback" not in said, said
    return said


# --------------------------------------------------------------------------------------------------------- works


def test_what_was_fetched_trains_with_the_hub_off(hub: Hub, tmp_path: Path) -> None:
    """From the reviews to the trained model, without the server."""
    cache = tmp_path / "cache"
    said = succeed(fetch(hub, tmp_path, "--cache", cache))
    assert f"export HF_HOME={cache}" in said and "HF_HUB_OFFLINE=1" in said
    assert not (tmp_path / "home/hub").exists()
    nodes = offline(cache)
    jobs = jobs_of(tmp_path, config())
    jobs.succeed("corpus", **nodes)
    corpus = jobs.layout.corpus
    assert pq.read_schema(corpus).metadata[b"classes"] == b'["neg", "pos"]'
    table = pq.read_table(corpus)
    assert table["origin"].to_pylist() == ["train"] * 80 + ["test"] * 80
    assert table["label"].to_pylist() == [0, 1] * 80
    assert table["text"][1].as_py() == "train 1: a fine film"
    ((cell, _),) = jobs.study.train_specs().items()
    assert jobs.fork("split", **nodes).complete().returncode == 0
    for job in ("tokenize/tiny", f"train/{cell.path}"):
        jobs.succeed(job, **nodes)
    assert (jobs.layout.run(cell.path) / "train.json").is_file()


def test_it_takes_what_is_needed_once_and_names_the_commits(hub: Hub, tmp_path: Path) -> None:
    said = succeed(fetch(hub, tmp_path))
    assert "model.safetensors" in hub.downloads and "tokenizer.json" in hub.downloads
    assert not [file for file in hub.downloads if "onnx" in file or file.endswith(".bin")]
    for path, key in (("models/someone/tiny", "models.tiny"), ("datasets/someone/reviews", "data")):
        assert f"{key}.revision: {hub.repositories[path].names['main']}" in said
    hub.downloads.clear()
    again = succeed(fetch(hub, tmp_path))
    assert hub.downloads == []
    assert again.count(", 0.0 kB of it downloaded now") == 2


def test_a_pinned_commit_needs_no_advice(hub: Hub, tmp_path: Path) -> None:
    commit = hub.repositories["models/someone/tiny"].names["main"]
    said = succeed(
        fetch(
            hub,
            tmp_path,
            data={"source": "synthetic"},
            models={"m": {"checkpoint": "someone/tiny", "revision": commit}},
        )
    )
    assert "can move" not in said and commit in said


def test_offline_a_data_set_is_that_of_its_revision(hub: Hub, tmp_path: Path) -> None:
    """Also where another revision was fetched and read later."""
    rows = {"v1": 120, "main": 160}
    study = {revision: config(data={"source": "someone/reviews", "revision": revision}) for revision in rows}
    for revision in rows:
        succeed(fetch(hub, tmp_path, data=study[revision]["data"], models={"b": {"architecture": "bert"}}))
    for revision in ("v1", "main"):
        jobs = jobs_of(tmp_path, study[revision])
        jobs.succeed("corpus", **offline(tmp_path / "home"))
        assert pq.read_metadata(jobs.layout.corpus).num_rows == rows[revision]


def test_nothing_to_fetch(tmp_path: Path, root: Path) -> None:
    said = succeed(batchscope("fetch", "--configfile", root / "config/demo.yaml", HF_ENDPOINT=NOWHERE))
    assert "Nothing to fetch" in said


def test_the_reference_study_takes_three_things(root: Path) -> None:
    assert [(item.kind, item.name) for item in wanted(Study.from_yaml(root / "config/config.yaml"))] == [
        ("model", "google-bert/bert-base-uncased"),
        ("model", "answerdotai/ModernBERT-base"),
        ("dataset", "stanfordnlp/imdb"),
    ]


# --------------------------------------------------------------------------------------------------------- fails


def test_what_the_hub_does_not_give_is_one_message(hub: Hub, tmp_path: Path) -> None:
    synthetic = {"source": "synthetic"}

    def fetched(**model: str) -> str:
        return refusal(fetch(hub, tmp_path, data=synthetic, models={"m": model}))

    assert "models.m.checkpoint: the hub has no public model 'someone/else'" in fetched(checkpoint="someone/else")
    assert "has no revision 'v9'" in fetched(checkpoint="someone/tiny", revision="v9")
    assert "holds no safetensors" in fetched(checkpoint="someone/bare")
    hub.repositories["models/someone/tiny"].gated = True
    assert "is gated: accept its terms" in fetched(checkpoint="someone/tiny")
    unreachable = batchscope(
        "fetch", "--configfile", tmp_path / "config.json", HF_ENDPOINT=NOWHERE, HF_HOME=str(tmp_path / "other")
    )
    assert f"{NOWHERE} cannot be reached from here" in refusal(unreachable)
    off = batchscope("fetch", "--configfile", tmp_path / "config.json", **offline(tmp_path / "other"))
    assert "HF_HUB_OFFLINE is set" in refusal(off)


def test_half_a_data_set_is_not_taken_for_the_whole(hub: Hub, tmp_path: Path) -> None:
    hub.broken.add("plain_text/test-00000-of-00001.parquet")
    refusal(fetch(hub, tmp_path, models={"b": {"architecture": "bert"}}))
    assert "plain_text/train-00000-of-00001.parquet" in hub.downloads
    jobs = jobs_of(tmp_path, config())
    job = jobs.run("corpus", **offline(tmp_path / "home"))
    assert "is not whole at revision 'main'" in refusal(job) and "batchscope fetch" in refusal(job)
    hub.broken.clear()
    succeed(fetch(hub, tmp_path, models={"b": {"architecture": "bert"}}))
    jobs.succeed("corpus", **offline(tmp_path / "home"))


def test_a_job_whose_data_was_not_fetched_says_how(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, config())
    job = jobs.run("corpus", **offline(tmp_path / "home"))
    assert "data.source" in refusal(job) and "batchscope fetch" in refusal(job)
    job = jobs.run(
        "corpus", HF_ENDPOINT=NOWHERE, HF_HOME=str(tmp_path / "home"), HF_HUB_OFFLINE="0", HF_DATASETS_OFFLINE="0"
    )
    assert f"{NOWHERE} cannot be reached from here" in refusal(job) and "local folder" in refusal(job)


def test_a_disk_that_is_too_small(tmp_path: Path) -> None:
    item = Item("data.source", "dataset", "someone/reviews", "main")
    with pytest.raises(UserError, match="takes 1000000000000"):
        _check_space(item, 10**18, tmp_path / "not/there/yet")
    _check_space(item, 0, tmp_path)
    full = OSError(errno.ENOSPC, "No space left on device")
    assert "is full" in _explain(full, "dataset", "someone/reviews", "main", tmp_path)
