"""`batchscope compare`: two fabricated studies whose differences are known."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fabricate import study_folder
from jobs import MODULE, Jobs, codes

from batchscope.compare.compare import Comparison, Section, as_markdown, compare, in_brief, write_page
from batchscope.compare.differences import in_json
from batchscope.compare.results import compare_results
from batchscope.compare.sides import read_sides
from batchscope.config.study import Study
from batchscope.errors import UserError
from batchscope.files import DamagedFileError, read_json, write_json
from batchscope.provenance.layout import Layout
from batchscope.provenance.stages import write_record
from batchscope.report import tables
from batchscope.report.spec import ReportSpec, TablesSpec

MODELS = {"bert": {"architecture": "bert"}}
CONFIG = {
    "study": "first",
    "data": {"source": "synthetic", "unit": "comment"},
    "models": MODELS,
    "target_batch_sizes": [16, 64],
    "lr_policies": {"constant": {"base_lr": 1e-3}},
    "seeds": [1, 2, 3],
    "budget": {"epochs": 1},
}
OTHER = {"study": "second", "seeds": [2, 3, 4, 5], "target_batch_sizes": [16, 256], "optimizer": {"weight_decay": 0.1}}
RUN = "bert/bs16/constant/seed{}"


def finished(folder: Path, change_of_code: bool = False, manifest: dict | None = None, **changes: object) -> Path:
    """A finished study with its job file and its tables; all of its trainings have fingerprints of their own."""
    jobs = Jobs(folder, Study.from_mapping(CONFIG | changes), dict(codes()))
    if change_of_code:
        jobs = replace(jobs, codes=jobs.codes | {"train": "0123456789abcdef"})
    jobs.file()
    read, study = jobs.read(), jobs.layout.study
    spec = read.spec("report", ReportSpec)
    manifests = {
        cell.run: {"fingerprint": f"{read.study[:1]}{number:015d}"} | (manifest or {})
        for number, cell in enumerate(spec.cells)
    }
    study_folder(study, spec, effect=0.1, manifests=manifests)
    tables.write_tables(read.spec("tables", TablesSpec), study)
    return study


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ``results/`` holds two studies; nobody may change them."""
    folder = tmp_path_factory.mktemp("two")
    finished(folder)
    versions = {"python": "3.11.7", "torch": "2.14.0"}
    finished(folder, True, {"versions": versions, "device": "NVIDIA H100", "precision": "bfloat16"}, **OTHER)
    return folder


@pytest.fixture
def here(results: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as working directory."""
    monkeypatch.chdir(results)
    return results


@pytest.fixture
def own(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may change."""
    shutil.copytree(results / "results", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def section(found: Comparison, title: str) -> Section:
    return next(one for one in found.sections if one.title.startswith(title))


def test_what_differs_is_told_by_key_stage_and_library(here: Path) -> None:
    found = compare(Path("first"), Path("second"))
    assert section(found, "Config").rows == [
        ["lr_policies.constant.256", "unset", "[0.001]"],
        ["lr_policies.constant.64", "[0.001]", "unset"],
        ["optimizer.weight_decay", "0.0", "0.1"],
        ["seeds", "[1, 2, 3]", "[2, 3, 4, 5]"],
        ["target_batch_sizes", "[16, 64]", "[16, 256]"],
    ]
    assert section(found, "Code").rows == [["train", codes()["train"], "0123456789abcdef"]]
    assert section(found, "Libraries").rows == [
        ["device", "cpu", "NVIDIA H100"],
        ["precision", "float32", "bfloat16"],
        ["torch", "2.13.0", "2.14.0"],
    ]
    assert [in_json(value) for value in (1, "1", None, 0.5, [1, "a"])] == ["1", '"1"', "unset", "0.5", '[1, "a"]']


def test_a_shared_cell_is_paired_by_review_over_the_seeds_of_both(here: Path) -> None:
    """Against the same by hand: 300 reviews, seeds 2 and 3 of both, and Student's t with one degree of freedom."""
    sides = read_sides(Path("first"), Path("results/second"))
    compared = compare_results(*sides)
    (cell,) = compared.cells
    assert (cell.place[:3], cell.method, cell.seeds, cell.estimand) == (
        ("bert", 16, "constant"),
        "paired",
        2,
        "population",
    )
    assert (cell.first_seeds, cell.second_seeds, compared.unpaired_because) == (3, 4, "")
    correct = [
        tables.TestPredictions.read({seed: side.layout.run(RUN.format(seed)) for seed in (2, 3)}).correct
        for side in sides
    ]
    d = np.array([correct[1][seed].astype(int) - correct[0][seed].astype(int) for seed in (2, 3)])
    assert cell.difference == pytest.approx(d.mean())
    shared = np.cov(d)[0, 1]
    error = np.sqrt(d.mean(1).var(ddof=1) / 2 + max(shared, 0) / d.shape[1])
    assert (cell.high - cell.low) / 2 == pytest.approx(12.706 * error, rel=1e-4)
    said = " ".join(section(compare(Path("first"), Path("second")), "Results").sentences)
    assert "over the seeds that both studies have" in said
    assert "1 cell of first is not in second. 1 cell of second is not in first." in said


def test_other_reviews_are_compared_unpaired_and_it_is_said(own: Path) -> None:
    for path in Path("results/second/runs").rglob("manifest.json"):
        write_json(path, read_json(path) | {"corpus": "d" * 64})
    found = compare_results(*read_sides(Path("first"), Path("second")))
    (cell,) = found.cells
    assert (cell.method, cell.seeds, cell.estimand) == ("unpaired", 0, None)
    assert cell.low < cell.difference < cell.high and cell.difference == pytest.approx(cell.second - cell.first)
    results = section(compare(Path("first"), Path("second")), "Results")
    assert results.rows[0][-1] == "unpaired: these trained models, on comments like these"
    assert "not paired by comment, because they have other comments, or divide them otherwise" in results.sentences[1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda run: write_json(run / "manifest.json", read_json(run / "manifest.json") | {"corpus": None}),
            "a manifest",
        ),
        (lambda run: (run / "predictions.parquet").unlink(), "predictions cannot be read"),
    ],
)
def test_what_cannot_be_paired_says_why(own: Path, change, reason: str) -> None:
    change(Path("results/second/runs") / RUN.format(2))
    found = compare_results(*read_sides(Path("first"), Path("second")))
    assert found.cells[0].method == "unpaired" and reason in found.unpaired_because


def test_the_same_trainings_are_named_so(own: Path) -> None:
    shutil.copytree("results/first", "results/copy")
    found = compare(Path("first"), Path("copy"))
    results = section(found, "Results")
    assert [row[-1] for row in results.rows] == ["the same trainings"] * 2
    assert section(found, "Code").sentences == ["Both were made with the same code, stage by stage."]
    assert not section(found, "Config").rows and not section(found, "Libraries").rows


def test_text_and_page_say_the_same_and_twice_the_same(here: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    command = [sys.executable, *MODULE, "compare", "first", "second", "--html", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = compare(Path("first"), Path("second"))
    assert done.stdout == as_markdown(found)
    html = page.read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))
    assert all(value in text for one in found.sections for row in one.rows for value in row)
    assert "<script" not in html and "http" not in re.sub("http-equiv", "", html)


def test_hostile_text_is_text(here: Path, tmp_path: Path) -> None:
    evil = "<script>x</script> a|b \x1b[31m \u202e {{ 7 * 7 }}"
    found = Comparison(evil, "b", "", [Section("Config", ["key", evil], [[evil, evil]], [])])
    markdown = as_markdown(found)
    assert "| &lt;script>x&lt;/script> a\\|b \\x1b[31m \\u202e {{ 7 * 7 }} |" in markdown
    write_page(found, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in html and "\x1b" not in html + markdown and "\u202e" not in html + markdown
    assert "{{ 7 * 7 }}" in html


def test_bad_inputs_are_one_message_each(own: Path) -> None:
    for named, message in (
        (("first", "first"), "first and first are the same study, results/first: name two"),
        (("first", "nothing"), "there is no study nothing"),
        (("first", "results"), "results is not the folder of a study"),
    ):
        with pytest.raises(UserError, match=message):
            compare(*map(Path, named))
    Path("results/second/tables/results.parquet").unlink()
    with pytest.raises(UserError, match=r"results/second is not finished: it has no tables/results\.parquet"):
        compare(Path("first"), Path("second"))


def test_results_of_another_config_are_told_before_they_are_shown(here: Path, monkeypatch) -> None:
    one, other = read_sides(Path("first"), Path("second"))
    for stale in (True, False):
        sides = one._replace(stale=stale), other._replace(stale=False)
        monkeypatch.setattr("batchscope.compare.compare.read_sides", lambda *_, sides=sides: sides)
        said = compare(Path("first"), Path("second")).headline
        assert said.startswith("The tables of first were made of another config") == stale
        assert ("start its workflow again" in said) == stale


def test_studies_that_share_nothing_are_refused_with_what_they_have(own: Path) -> None:
    finished(own, study="third", models={"mine": {"architecture": "bert"}}, seeds=[1])
    expected = r"first and third share no cell: bert \(16, 64; constant; .*\) in the first, mine \(16, 64; constant; "
    with pytest.raises(UserError, match=expected):
        compare(Path("first"), Path("third"))


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((0, 0, 0), "Config, code, libraries and devices are the same."),
        ((1, 0, 0), "What differs: 1 key of the config."),
        ((2, 1, 3), "What differs: 2 keys of the config, the code of 1 stage and 3 facts about libraries and devices."),
    ],
)
def test_what_differs_in_brief(counts: tuple[int, int, int], said: str) -> None:
    assert in_brief(*counts) == said


def recorded(study: Path) -> None:
    """Record the jobs whose files are compared, as they are now."""
    layout = Layout(study)
    runs = {path.parent.relative_to(study / "runs").as_posix() for path in study.glob("runs/*/*/*/*/manifest.json")}
    for job in ("tables", *(f"{verb}/{run}" for run in runs for verb in ("train", "evaluate"))):
        write_record(layout, job, "{}", "c" * 16)


def test_changed_numbers_are_not_compared(own: Path) -> None:
    """One more right prediction in a table, or another training's fingerprint, is another difference."""
    study = Path("results/second")
    recorded(study)
    compare(Path("first"), Path("second"))
    path, manifest = study / "tables/results.parquet", study / "runs" / RUN.format(2) / "manifest.json"
    whole, frame = path.read_bytes(), pd.read_parquet(path)
    frame.assign(test_correct=frame.test_correct + 1).to_parquet(path)
    with pytest.raises(DamagedFileError, match=r"results\.parquet is damaged \(it is not as the job tables"):
        compare(Path("first"), Path("second"))
    path.write_bytes(whole)
    write_json(manifest, read_json(manifest) | {"fingerprint": "0" * 16})
    with pytest.raises(DamagedFileError, match=r"seed2/manifest\.json is damaged \(it is not as the job train/"):
        compare(Path("first"), Path("second"))


def test_changed_predictions_are_not_paired(own: Path) -> None:
    study = Path("results/second")
    recorded(study)
    path = study / "runs" / RUN.format(2) / "predictions.parquet"
    frame = pd.read_parquet(path)
    frame.assign(logit_0=-frame.logit_0).to_parquet(path)
    found = compare_results(*read_sides(Path("first"), Path("second")))
    assert found.cells[0].method == "unpaired" and "it is not as the job evaluate/" in found.unpaired_because


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("tables/results.parquet", b"", "size is 0 bytes"),
        ("tables/provenance.csv", b"", "No columns"),
        ("tables/provenance.csv", b"\xff", "can't decode"),
        ("tables/provenance.csv", b"a,b\n1,2\n", "it lacks run"),
        ("runs/bert/bs16/constant/seed2/manifest.json", b"[]", "does not say which training"),
        ("runs/bert/bs16/constant/seed2/manifest.json", b'{"corpus": "c"}', "does not say which training"),
        ("runs/bert/bs16/constant/seed2/manifest.json", b'{"fingerprint": "f", "corpus": [1]}', "does not say which"),
    ],
)
def test_a_damaged_file_is_named(own: Path, file: str, content: bytes, said: str) -> None:
    Path("results/second", file).write_bytes(content)
    with pytest.raises(DamagedFileError, match=rf"second/{file} is damaged \(.*{said}"):
        compare(Path("first"), Path("second"))


@pytest.mark.parametrize("column", ["budget", "test_correct"])
def test_a_table_of_another_version_is_named(own: Path, column: str) -> None:
    path = Path("results/second/tables/results.parquet")
    pd.read_parquet(path).drop(columns=column).to_parquet(path)
    with pytest.raises(DamagedFileError, match=rf"results\.parquet is damaged \(it lacks {column}"):
        compare(Path("first"), Path("second"))
