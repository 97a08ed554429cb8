"""Finished work is found by its fingerprint, taken whole or not at all."""

import os
from pathlib import Path

import pytest

from batchscope.files import read_json, write_json
from batchscope.provenance.reuse import RUNS, hashes, reuse, stored_manifest

RUN = "runs/bert/bs64/constant/seed1"


def finished_run(results: Path, study: str, fingerprint: str, text: str = "weights") -> Path:
    """A run with two files and a manifest."""
    run = results / study / RUN
    for name in ("checkpoints/best.safetensors", "train.json"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(f"{name} {text}")
    write_json(run / "manifest.json", {"fingerprint": fingerprint, "files": hashes(run), "reused_from": None})
    return run


def test_the_files_come_with_the_name_of_their_origin(tmp_path: Path) -> None:
    source, target = finished_run(tmp_path, "old", "f"), tmp_path / "new" / RUN
    os.utime(source / "train.json", (0, 0))
    assert reuse(target, "f", tmp_path, RUNS) == source
    assert hashes(target) == hashes(source)
    assert read_json(target / "manifest.json") == read_json(source / "manifest.json") | {"reused_from": str(source)}
    assert (target / "train.json").stat().st_mtime > 0, "Snakemake takes an old time for a job that did not run"
    assert not (target / "train.json").samefile(source / "train.json")


def test_another_fingerprint_is_not_taken(tmp_path: Path) -> None:
    finished_run(tmp_path, "old", "f")
    assert reuse(tmp_path / "new" / RUN, "g", tmp_path, RUNS) is None
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_run_is_passed_over_for_a_whole_one(tmp_path: Path, damage: str) -> None:
    broken, whole = (finished_run(tmp_path, study, "f") for study in ("a", "b"))
    best = broken / "checkpoints/best.safetensors"
    best.write_text("other") if damage == "changed" else best.unlink()
    target = tmp_path / "new" / RUN
    assert reuse(target, "f", tmp_path, RUNS) == whole
    assert hashes(target) == hashes(whole)
    (whole / "train.json").unlink()
    assert reuse(tmp_path / "newer" / RUN, "g", tmp_path, RUNS) is None


def test_a_run_that_is_there_already_stays(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "old", "f")
    before = (run / "manifest.json").read_text(), hashes(run)
    os.utime(run / "train.json", (0, 0))
    assert reuse(run, "f", tmp_path, RUNS) == run
    assert ((run / "manifest.json").read_text(), hashes(run)) == before
    assert (run / "train.json").stat().st_mtime > 0


def test_what_an_earlier_training_left_is_cleared_out(tmp_path: Path) -> None:
    finished_run(tmp_path, "a", "f")
    target = finished_run(tmp_path, "b", "g", text="other")
    (target / "checkpoints/epoch3-val_acc0.5000.safetensors").write_text("stale")
    (target / "metrics.json").write_text("of another stage")
    assert reuse(target, "f", tmp_path, RUNS)
    assert sorted(path.name for path in (target / "checkpoints").iterdir()) == ["best.safetensors"]
    assert (target / "metrics.json").exists()


def test_a_lost_file_comes_back_from_its_twin(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "old", "f")
    best, twin = run / "checkpoints/best.safetensors", run / "checkpoints/epoch1-val_acc0.9000.safetensors"
    twin.write_bytes(best.read_bytes())
    (run / "manifest.json").unlink()
    write_json(run / "manifest.json", {"fingerprint": "f", "files": hashes(run), "reused_from": None})
    best.unlink()
    assert reuse(run, "f", tmp_path, RUNS) == run
    assert best.read_bytes() == twin.read_bytes()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"fingerprint": "f"}'])
def test_an_unreadable_manifest_is_no_run(tmp_path: Path, text: str) -> None:
    run = finished_run(tmp_path, "old", "f")
    (run / "manifest.json").write_text(text)
    assert reuse(tmp_path / "new" / RUN, "f", tmp_path, RUNS) is None


@pytest.mark.parametrize(
    "changes",
    [
        *({"fingerprint": [1]}, {"files": []}, {"files": {"a": 1}}, {"spec": None}, {"precision": [1]}),
        *({"files": {"../seed2/history.jsonl": "x"}}, {"files": {"/etc/passwd": "x"}}),
    ],
)
def test_a_manifest_of_another_shape_is_passed_over(tmp_path: Path, changes: dict[str, object]) -> None:
    whole = {"spec": {}, "fingerprint": "f", "files": {"history.jsonl": "x"}, "precision": "float32"}
    write_json(tmp_path / "manifest.json", whole)
    assert stored_manifest(tmp_path / "manifest.json") == whole
    write_json(tmp_path / "manifest.json", whole | changes)
    assert stored_manifest(tmp_path / "manifest.json") is None
