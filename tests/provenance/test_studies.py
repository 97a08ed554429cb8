"""Which study a person means."""

import os
from pathlib import Path

import pytest
from jobs import jobs_of
from small import tiny_config

from batchscope.errors import UserError
from batchscope.provenance.clean import leftovers
from batchscope.provenance.studies import find_study, jobs_in, newest_job_file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a study that was started, and its config."""
    monkeypatch.chdir(tmp_path)
    jobs_of(Path(), tiny_config()).file()
    Path("tiny.yaml").write_text("study: tiny\nseeds: [1]\n")
    return tmp_path


@pytest.mark.parametrize("named", ["tiny", "tiny.yaml", "results/tiny", "results/tiny/"])
def test_a_study_is_found_by_name_config_or_folder(folder: Path, named: str) -> None:
    layout = find_study(Path(named))
    assert layout.study == Path("results/tiny")
    assert jobs_in(layout, newest_job_file(layout)).study == "tiny"


def test_a_study_elsewhere_is_read_where_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    layout = find_study(folder / "results/tiny")
    assert jobs_in(layout, newest_job_file(layout)).layout.study == folder / "results/tiny"


def test_the_newest_job_file_is_that_of_the_last_start(folder: Path) -> None:
    layout, jobs = find_study(Path("tiny")), jobs_of(Path(), tiny_config())
    other = jobs_of(Path(), tiny_config(seeds=[1, 2])).file()
    os.utime(jobs.file(), (1, 1))
    assert newest_job_file(layout) == other
    os.utime(other, (2, 2))
    assert newest_job_file(layout) == other and jobs.file() == newest_job_file(layout), "a start renews the time"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("none", "there is no study none: give its config file, or its folder"),
        ("notes.txt", "notes.txt is neither a config"),
        ("nameless.yaml", "nameless.yaml names no study"),
        ("list.yaml", "list.yaml names no study"),
        ("broken.yaml", "cannot read the config broken.yaml"),
        ("new.yaml", "the workflow was not started for new.yaml yet: results/new/jobs holds no job file"),
        ("src", "src is not the folder of a study: it has no jobs/"),
    ],
)
def test_what_is_no_study_is_named(folder: Path, named: str, message: str) -> None:
    Path("notes.txt").touch()
    Path("nameless.yaml").write_text("seeds: [1]")
    Path("list.yaml").write_text("- study")
    Path("broken.yaml").write_text("study: [")
    Path("new.yaml").write_text("study: new")
    Path("src").mkdir()
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        find_study(Path(named))


def test_what_lies_beside_the_job_files_is_no_job_file(folder: Path) -> None:
    layout = find_study(Path("tiny"))
    newest = newest_job_file(layout)
    for name in ("copy of a job.json", f"._{newest.name}", f"{newest.stem} (1).json"):
        (layout.job_files / name).write_text("{}")
    (layout.job_files / "0123456789abcdef.json").symlink_to("0123456789abcdef.json")
    (layout.job_files / "fedcba9876543210.json").symlink_to("nowhere")
    assert newest_job_file(layout) == newest
    assert leftovers(Path("results"), days=0) == []
