"""`batchscope report --partial`: what a study has so far, from fabricated runs in the real file formats."""

import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
from fabricate import HOSTILE, study_folder
from jobs import MODULE, Jobs, codes
from processes import process

from batchscope.config.study import Study
from batchscope.errors import UserError
from batchscope.files import DamagedFileError, write_json, write_text
from batchscope.provenance.stages import write_record
from batchscope.report.spec import ReportSpec
from batchscope.watch.partial import finished_part, withheld_verdicts, write_partial

CONFIG = {
    "study": "half",
    "data": {"source": "synthetic"},
    "models": {"bert": {"architecture": "bert"}, "modernbert": {"architecture": "modernbert"}},
    "target_batch_sizes": [16, 64],
    "lr_policies": {
        "constant": {"base_lr": 1e-3},
        "sqrt": {"base_lr": 1e-3, "scaling": "sqrt", "reference_batch_size": 16},
    },
    "seeds": [1, 2],
    "budget": {"epochs": 1},
}
FAILED = "bert/bs64/constant/seed2"
DONE = [f"bert/bs16/constant/seed{seed}" for seed in (1, 2)] + ["bert/bs64/constant/seed1", "bert/bs64/sqrt/seed1"]


def half_study(folder: Path, done: list[str] = DONE, **changes: object) -> Jobs:
    """A study whose workflow has finished these runs, and failed in one training."""
    jobs = Jobs(folder, Study.from_mapping(CONFIG | changes), dict(codes()))
    jobs.file()
    read = jobs.read()
    study_folder(jobs.layout.study, read.spec("report", ReportSpec))
    for job in read.jobs:
        verb, _, subject = job.partition("/")
        if verb in ("train", "evaluate") and subject in done:
            write_record(jobs.layout, job, read.identity(job), read.code(job))
    write_json(jobs.layout.process(f"train/{FAILED}"), process(jobs, phase="failed", message=f"boom {HOSTILE}"))
    write_text(jobs.layout.log(f"train/{FAILED}"), f"the last \x1b[31mwords\n{HOSTILE}\n")
    return jobs


def text_of(page: Path) -> str:
    """What a reader sees of a page."""
    html = re.sub(r"<(style|pre)>.*?</\1>", " ", page.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def test_half_a_study_is_shown_without_a_verdict(tmp_path: Path) -> None:
    jobs = half_study(tmp_path)
    before = {path for path in jobs.layout.study.rglob("*") if path.is_file()}
    done = subprocess.run(
        [sys.executable, *MODULE, "report", "--partial", "half"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "results/half/partial/index.html\n"), done.stderr
    folder = jobs.layout.study / "partial"
    page = folder / "index.html"
    made = {path for path in jobs.layout.study.rglob("*") if path.is_file()} - before
    assert made and all(path.is_relative_to(folder) for path in made), "and no file of the study itself"

    said = text_of(page)
    assert "partial: 4 of 12 runs" in said and re.search(r"as of \d{4}-\d\d-\d\d \d\d:\d\d ", said)
    assert "4 of 12 runs are trained and evaluated. Of the others: 1 failed, 7 to do." in said
    html = page.read_text(encoding="utf-8")
    assert html.count('class="number missing"') == 2 * 4, "the four cells of modernbert, two columns each"
    assert "1 of 2 seeds; 1 failed" in said and "2 of 2 seeds" in said and "2 to do" in said
    assert f"{FAILED}: train" in said and f"results/half/logs/train/{FAILED}.log" in said
    assert "the last \\x1b[31mwords" in html and "\x1b" not in html
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "bert · constant · 16 → 64: no verdict yet, because 1 of its 4 runs is not finished." in said
    assert not re.search(r"p = |p < |95% interval|equivalent|underpowered|different\b", said)
    assert html.count("<img") == 5

    results = pd.read_csv(folder / "tables/results.csv")
    assert sorted(set(results.run)) == sorted(DONE)
    missing = pd.read_csv(folder / "tables/missing.csv").set_index("run")
    assert len(missing) == 8 and missing.loc[FAILED, "state"] == "failed"
    assert not list(folder.rglob("contrasts*"))


def test_one_run_of_two_models_can_be_drawn_and_nothing_of_an_earlier_page_stays(tmp_path: Path) -> None:
    jobs = half_study(tmp_path, ["bert/bs64/sqrt/seed2"])
    write_text(jobs.layout.study / "partial/figures/stale.png", "of an earlier page")
    page = write_partial(jobs.layout)
    assert "partial: 1 of 12 runs" in text_of(page)
    assert sorted(path.stem for path in page.parent.glob("figures/*.png")) == [
        *("accuracy", "cost", "training_accuracy_0", "training_loss_0", "validation_accuracy_0")
    ]


def test_batch_sizes_keep_the_colours_of_the_whole_study(tmp_path: Path) -> None:
    from batchscope.report.style import batch_colours

    spec = half_study(tmp_path, target_batch_sizes=[16, 64, 256]).read().spec("report", ReportSpec)
    whole = batch_colours(spec)
    gone = {cell.run: None for cell in spec.cells if cell.batch != 64}
    assert batch_colours(finished_part(spec, gone)) == {64: whole[64]}  # type: ignore[arg-type]


def test_the_test_of_a_sweep_s_candidate_is_not_read(tmp_path: Path) -> None:
    swept = {"lr_policies": {"tuned": {"sweep": [1e-3, 2e-3]}}, "seeds": [1]}
    runs = [f"bert/bs16/tuned@{rate}/seed1" for rate in ("0.001", "0.002")]
    jobs = half_study(tmp_path, **swept)
    spec = jobs.read().spec("report", ReportSpec)
    runs = [cell.run for cell in spec.cells if (cell.model, cell.batch) == ("bert", 16)]
    page = write_partial(half_study(tmp_path / "again", runs, **swept).layout)
    said = text_of(page)
    assert "its learning rate is chosen when the sweep is finished" in said
    assert "Learning-rate sweeps, by validation alone" in said
    assert not (page.parent / "tables/results.csv").exists()


def test_every_claim_says_why_it_has_no_verdict(tmp_path: Path) -> None:
    spec = half_study(tmp_path, models={"bert": {"architecture": "bert"}}).read().spec("report", ReportSpec)
    assert withheld_verdicts(spec, {"bert/bs64/sqrt/seed1": None}) == [  # type: ignore[dict-item]
        "bert · constant · 16 → 64: no verdict yet, because its runs are finished, but Holm's correction is over "
        "3 contrasts, of which 2 are not.",
        "bert · sqrt · 16 → 64: no verdict yet, because 1 of its 4 runs is not finished.",
        "bert · 64 · constant → sqrt: no verdict yet, because 1 of its 4 runs is not finished.",
    ]
    assert all("start the workflow again" in sentence for sentence in withheld_verdicts(spec, {}))


def test_nothing_finished_and_everything_finished_are_one_message(tmp_path: Path) -> None:
    jobs = half_study(tmp_path, [])
    with pytest.raises(UserError, match=r"no run of .*half is trained and evaluated yet \(0 of 12\)"):
        write_partial(jobs.layout)
    read = jobs.read()
    write_record(jobs.layout, "report", read.identity("report"), read.code("report"))
    write_text(jobs.layout.study / "report/index.html", "made")
    with pytest.raises(UserError, match=r"the study is complete, and its report is .*index\.html"):
        write_partial(jobs.layout)


def test_report_without_either_form_says_what_to_give(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, *MODULE, "report"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "give --partial STUDY" in done.stderr


@pytest.mark.parametrize("name", ["train.json", "metrics.json", "manifest.json", "history.jsonl"])
def test_a_changed_file_of_a_finished_run_is_named(tmp_path: Path, name: str) -> None:
    jobs = half_study(tmp_path)
    path = jobs.layout.run(DONE[0]) / name
    write_text(path, path.read_text().replace("1", "2", 1))
    with pytest.raises(DamagedFileError, match=rf"{DONE[0]}/{name} is damaged \(it is not as the job .*{DONE[0]}"):
        write_partial(jobs.layout)
    assert not (jobs.layout.study / "partial/index.html").exists()
