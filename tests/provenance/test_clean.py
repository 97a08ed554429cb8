"""`batchscope clean` deletes what no run needs, and nothing else."""

import io
import os
import time
from pathlib import Path
from typing import Any

import pytest
from jobs import RUN, Jobs, jobs_of
from lock_holder import hold
from small import tiny_config

from batchscope.cli.main import main
from batchscope.files import write_json, write_text
from batchscope.provenance.clean import leftovers, size_in_words
from batchscope.provenance.code import code_hash
from batchscope.provenance.jobs import write_job_file
from batchscope.provenance.layout import Layout
from batchscope.provenance.manifests import run_fingerprint
from batchscope.provenance.stages import STAGES, write_record
from batchscope.training.spec import TrainSpec

CONFIG = tiny_config(models={"bert": tiny_config()["models"]["bert"]}, target_batch_sizes=[16, 40])
OTHER = RUN.replace("bs16", "bs40")


def fingerprint(jobs: Jobs, run: str = RUN) -> str:
    study = jobs.read()
    return run_fingerprint(
        study.spec(f"train/{run}", TrainSpec), study.code(f"train/{run}"), jobs.layout.tokens("bert")
    )


def fill(folder: Path, name: str = "state-000000005-x.pt") -> Path:
    write_text(folder / name, "x" * 2048)
    return folder


def age(results: Path, days: float = 30) -> None:
    """Make everything as old as that."""
    then = time.time() - days * 86_400
    for path in [results, *results.rglob("*")]:
        os.utime(path, (then, then), follow_symlinks=False)


@pytest.fixture
def jobs(small_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """A study of which one training is finished and one is not, with everything that may lie about, a month old."""
    monkeypatch.chdir(tmp_path)
    jobs = jobs_of(tmp_path, CONFIG, small_study)
    layout, code = jobs.layout, code_hash(STAGES["train"].module)
    write_json(layout.run(RUN) / "manifest.json", {"fingerprint": fingerprint(jobs), "files": {}})
    write_text(layout.run(RUN) / "checkpoints/best.safetensors", "weights")
    write_text(layout.run("gone/bs1/constant/seed1") / "train.json", "a finished run of an earlier config")
    write_record(layout, f"train/{RUN}", "{}", code)
    age(tmp_path / "results")
    return jobs


def needed(jobs: Jobs) -> list[Path]:
    """What an unfinished run, a job to come or a record needs."""
    made_of = jobs.layout.ready / f"evaluate/{RUN}"
    return [
        fill(jobs.layout.state / f"{fingerprint(jobs, OTHER)}-float32-cpu"),
        fill(made_of, "made_of.json"),
        jobs.file(),
        jobs.layout.code_record(code_hash(STAGES["train"].module)),
        jobs.layout.run("gone/bs1/constant/seed1") / "train.json",
    ]


def orphaned(jobs: Jobs) -> list[Path]:
    """What nothing needs."""
    layout = jobs.layout
    earlier = jobs_of(jobs.folder, CONFIG | {"seeds": [7]})
    old = write_job_file(
        layout.job_files, "tiny", earlier.study.job_specs(), jobs.codes, earlier.study.train_settings()
    )
    for name in ("code/0123456789abcdef.json",):
        write_json(layout.study / "fingerprints" / name, {})
    half = [
        layout.run(RUN) / "checkpoints/.4242.best.safetensors",
        layout.processes / f"train/{Path(RUN).parent}/.7.seed1.json",
    ]
    for path in half:
        write_text(path, "half")
    return [
        fill(layout.state / "0123456789abcdef-float32-cpu"),
        fill(layout.state / f"{fingerprint(jobs)}-bfloat16-cuda"),
        fill(layout.state / f"branches/{fingerprint(jobs)}-float32-cpu"),
        fill(layout.ready / "attention/gone/bs1/constant/seed1", "made_of.json"),
        old,
        layout.study / "fingerprints/code/0123456789abcdef.json",
        *half,
    ]


def everything(results: Path) -> set[Path]:
    return {path for path in results.rglob("*") if path.is_file()}


def test_what_nothing_needs_is_listed_and_deleted_when_told(jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    wanted, lost = needed(jobs), orphaned(jobs)
    age(jobs.folder / "results")
    jobs.file()
    assert {one.path.resolve() for one in leftovers(Path("results"), 7)} == {path.resolve() for path in lost}
    before = everything(Path("results"))
    main(["clean"])
    said = capsys.readouterr().out
    assert all(path.relative_to(jobs.folder).as_posix() in said for path in lost) and "--yes deletes" in said
    assert everything(Path("results")) == before
    main(["clean", "--yes"])
    assert "freed" in capsys.readouterr().out
    assert not [path for path in lost if path.exists()]
    assert all(path.exists() for path in wanted) and (jobs.layout.run(RUN) / "checkpoints/best.safetensors").is_file()
    main(["clean"])
    assert capsys.readouterr().out.startswith("Nothing to remove")


@pytest.mark.parametrize(("answer", "stays"), [("y\n", False), ("yes\n", False), ("\n", True), ("no\n", True)])
def test_it_asks_first(jobs: Jobs, monkeypatch: pytest.MonkeyPatch, answer: str, stays: bool) -> None:
    (lost, *_) = orphaned(jobs)
    age(jobs.folder / "results")
    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", terminal)
    main(["clean", "results"])
    assert lost.exists() == stays


def test_what_was_changed_lately_stays(jobs: Jobs) -> None:
    lost = orphaned(jobs)
    assert leftovers(Path("results"), 7) == []
    age(jobs.folder / "results", 2)
    jobs.file()
    assert leftovers(Path("results"), 7) == []
    assert len(leftovers(Path("results"), 1)) == len(lost)


def test_the_states_of_a_training_that_runs_stay(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    lost = orphaned(jobs)
    age(jobs.folder / "results")
    jobs.file()
    lock = jobs.layout.locks / "0123456789abcdef.lock"
    lock.parent.mkdir()
    process = hold(lock)
    try:
        main(["clean", "--yes"])
    finally:
        process.kill()
        process.wait()
    assert [path.exists() for path in lost] == [True, *[False] * 7]
    assert "its training is running; it stays" in caplog.text


def test_where_nobody_knows_what_a_run_needs_its_states_stay(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    """Without tokens no fingerprint is known, and without the job file no training."""
    lost = orphaned(jobs)
    age(jobs.folder / "results")
    file = jobs.file()
    states = {path for path in lost if path.is_relative_to(jobs.layout.state) and not path.name.startswith(".")}
    (jobs.layout.study / "tokens").rename("elsewhere")
    assert not states - {lost[3]} & {jobs.folder / one.path for one in leftovers(Path("results"), 7)}
    Path("elsewhere").rename(jobs.layout.study / "tokens")
    file.write_text(file.read_text().replace("0", "1"))
    assert not states & {jobs.folder / one.path for one in leftovers(Path("results"), 7)}
    assert "cannot read the job file" in caplog.text


def test_states_of_a_finished_run_that_two_policies_share_are_listed(jobs: Jobs) -> None:
    """At the reference batch size both policies have the same learning rate: one run, in the folder of the first."""
    policies = CONFIG["lr_policies"] | {"root": {"base_lr": 1e-3, "scaling": "sqrt", "reference_batch_size": 16}}
    shared = jobs_of(jobs.folder, CONFIG | {"lr_policies": policies})
    states = fill(jobs.layout.state / f"{fingerprint(jobs)}-float32-cpu")
    age(jobs.folder / "results")
    assert f"train/{RUN.replace('constant', 'root')}" in shared.read().jobs
    assert states in [jobs.folder / one.path for one in leftovers(Path("results"), 7)]


def test_kept_states_of_a_run_that_is_branched_stay(jobs: Jobs) -> None:
    branched = jobs_of(jobs.folder, CONFIG | {"branch": {"at": [64], "samples": 512}})
    kept = fill(Layout(jobs.layout.study).state / f"branches/{fingerprint(jobs)}-float32-cpu")
    age(jobs.folder / "results")
    branched.file()
    assert kept not in [jobs.folder / one.path for one in leftovers(Path("results"), 7)]


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(SystemExit, match="there is no folder nowhere"):
        main(["clean", "nowhere"])


def test_sizes() -> None:
    assert [size_in_words(size) for size in (2048, 3 * 2**19, 2**30)] == ["2 KiB", "1.5 MiB", "1.0 GiB"]


@pytest.mark.parametrize("days", ["-1", "nan"])
def test_days_that_are_none_are_refused(tmp_path: Path, days: str) -> None:
    with pytest.raises(SystemExit, match="--days must be 0 or more"):
        main(["clean", str(tmp_path), f"--days={days}"])
