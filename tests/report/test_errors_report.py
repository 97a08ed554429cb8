"""Errors on the page: every figure is written, messages follow the numbers, the hardest reviews are whole."""

from pathlib import Path

import fabricate
import pandas as pd

from batchscope.report.atlas import flips_in_words
from batchscope.report.catalogue import figure_names
from batchscope.report.errors import error_figures, flips_message, groups_message, margins_message
from batchscope.report.page import write_report
from batchscope.report.spec import ReportSpec
from batchscope.report.tables import write_tables

ON = {"errors": {"enabled": True, "hardest": 3}}
ONE_POLICY = {"models": {"bert": {"architecture": "bert"}}, "lr_policies": {"constant": {"base_lr": 1e-3}}}
SMALL = ONE_POLICY | {"target_batch_sizes": [16, 64]}
ONE_RUN = ONE_POLICY | {"target_batch_sizes": [64], "seeds": [1]}


def study(folder: Path, spec: ReportSpec, **story: object) -> Path:
    write_tables(spec, fabricate.study_folder(folder, spec, examples=128, **story))
    return folder


def drawn(spec: ReportSpec, folder: Path) -> None:
    """Every figure of the errors can be drawn, and is in the catalogue."""
    assert spec.errors
    figures = error_figures(spec, spec.errors, folder / "tables")
    assert set(figures) == {Path(entry.name).stem for entry in figure_names(spec) if entry.category == "Errors"}
    for figure in figures.values():
        figure.draw_without_rendering()


def test_equal_predictions_have_a_reason_in_place_of_a_ratio() -> None:
    nothing = {"ratio": float("nan"), "low": float("nan"), "high": float("nan"), "between_seeds": 0.0, "reason": ""}
    place = {"model": "bert", "lr_policy": "constant", "budget": "2 epochs"}
    rows = [place | nothing | {"between_batch_sizes": share} for share in (0.0, 0.1)]
    rows.append(place | nothing | {"between_batch_sizes": 0.1, "reason": "needs two batch sizes and two seeds"})
    assert flips_in_words(fabricate.spec(), pd.DataFrame(rows)) == [
        "bert, constant LR policy: no prediction differs between seeds, nor between batch sizes.",
        "bert, constant LR policy: no prediction differs between seeds, so there is no ratio.",
        "bert, constant LR policy: the comparison needs two batch sizes and two seeds.",
    ]


def test_the_page_shows_the_hardest_reviews_whole(tmp_path: Path) -> None:
    spec = fabricate.spec(insight=ON, **SMALL)
    folder = study(tmp_path, spec)
    drawn(spec, folder)
    fabricate.small_figures(folder, spec)
    write_report(spec, folder)
    page = (folder / "report/index.html").read_text(encoding="utf-8")
    hardest = pd.read_csv(folder / "tables/hardest.csv", keep_default_na=False)
    assert len(hardest) == 3 and (hardest.cut != "").any()
    for row in hardest.itertuples():
        assert f"<b>{row.example_id}</b>" in row.text and f"<b>{row.example_id}</b>" not in page
        assert f"&lt;b&gt;{row.example_id}&lt;/b&gt;" in page
        assert f"Wrong in {row.wrong} of {row.runs} runs" in page
        assert not row.cut or f'<i class="unread">{row.cut.split("<")[0]}' in page
    assert "the ratio is" in page
    assert page.count('<img src="data:') == sum(entry.name.endswith(".png") for entry in figure_names(spec))
    assert "the ratio is" in (folder / "report/summary.md").read_text(encoding="utf-8")


def test_one_run_of_one_class_of_errors_is_a_sentence(tmp_path: Path) -> None:
    spec = fabricate.spec(insight={"errors": {"enabled": True, "hardest": 250}}, **ONE_RUN)
    folder = study(tmp_path, spec, collapsed=[spec.cells[0].run])
    drawn(spec, folder)
    fabricate.small_figures(folder, spec)
    write_report(spec, folder)
    page = (folder / "report/index.html").read_text(encoding="utf-8")
    assert "no review can be wrong in some runs and right in others" in page
    assert "the comparison needs two batch sizes and two seeds" in page
    assert "No more than 150 reviews are wrong in any run" in page


def test_runs_that_predict_alike_have_no_ratio_and_a_reason(tmp_path: Path) -> None:
    spec = fabricate.spec(insight={"errors": {"enabled": True, "hardest": 1, "embedding": False}}, **SMALL)
    folder = study(tmp_path, spec, collapsed=[cell.run for cell in spec.cells])
    fabricate.small_figures(folder, spec)
    write_report(spec, folder)
    page = (folder / "report/index.html").read_text(encoding="utf-8")
    assert "bert, constant LR policy: no prediction differs between seeds, nor between batch sizes." in page
    assert "100% are wrong in every run: no batch size and no seed of this study gets them right.</li>" in page
    assert spec.errors
    figure = error_figures(spec, spec.errors, folder / "tables")["errors_flips"]
    assert "no prediction differs between seeds" in {text.get_text().strip() for text in figure.axes[1].texts}


def test_messages_follow_the_numbers() -> None:
    counts = pd.DataFrame({"wrong": [10, 20, 0], "wrong_near_boundary": [2, 6, 0]})
    assert margins_message(counts, "m") == "m: 20% to 30% of the errors are close calls"
    assert margins_message(counts[2:], "m") == "m: no test prediction is wrong"
    groups = pd.DataFrame(
        [("class", "bad", 90, 100, 2), ("class", "good", 120, 100, 2), ("truncated", "true", 50, 50, 2)],
        columns=["by", "group", "correct", "examples", "seeds"],
    )
    assert groups_message(groups, "m") == "m: accuracy does not clearly differ between groups"
    clear = groups.assign(correct=groups.correct * 10, examples=groups.examples * 10)
    assert groups_message(clear, "m") == "m: accuracy differs by class (bad 45.0%, good 60.0%)"
    ends = pd.DataFrame({"low": [1.1, 0.8, None], "high": [1.4, 0.9, None]})
    assert "more predictions in 1 and fewer in 1 of 2 comparisons" in flips_message(ends)
    assert flips_message(ends[:1]) == "Another batch size changes more predictions than another seed"
    assert "does not change detectably more" in flips_message(ends.assign(low=0.9, high=1.2))
