"""The map of the training examples on the page: every figure is drawn, and the sentences follow the numbers."""

from pathlib import Path

import fabricate
import pandas as pd
import pytest
from matplotlib.text import Text

from batchscope.report.cartography import cartography_section
from batchscope.report.cartography_figures import agreement_message, cartography_figures, map_message
from batchscope.report.catalogue import figure_names
from batchscope.report.page import write_report
from batchscope.report.spec import ReportSpec
from batchscope.report.tables import write_tables

ON = {"insight": {"cartography": {"enabled": True}}, "keep": "all"}
ONE_MODEL = {"models": {"bert": {"architecture": "bert"}}, "target_batch_sizes": [16, 64]}
ONE_RUN = ONE_MODEL | {"target_batch_sizes": [64], "lr_policies": {"constant": {"base_lr": 1e-3}}, "seeds": [1]}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportSpec, Path]:
    spec = fabricate.spec(**ON, **ONE_MODEL)
    folder = fabricate.study_folder(tmp_path_factory.mktemp("study"), spec, examples=128, mapped=50)
    return spec, folder


def drawn(spec: ReportSpec, folder: Path) -> list[str]:
    """Every figure can be drawn, and is in the catalogue; their texts."""
    figures = cartography_figures(spec, folder / "tables")
    assert set(figures) == {Path(entry.name).stem for entry in figure_names(spec) if "cartography" in entry.name}
    for figure in figures.values():
        figure.draw_without_rendering()
    texts = (text for figure in figures.values() for text in figure.findobj(Text))
    return [text.get_text().replace("\n", " ") for text in texts]


def test_every_example_of_every_run_is_in_its_panel(study: tuple[ReportSpec, Path]) -> None:
    spec, folder = study
    drawn(spec, folder)
    panels = cartography_figures(spec, folder / "tables")["cartography_map_bert"].axes[:4]
    counts = [int(panel.collections[0].get_array().sum()) for panel in panels]
    assert counts == [50 * 2] * 4
    norms = {(panel.collections[0].norm.vmin, panel.collections[0].norm.vmax) for panel in panels}
    assert len(norms) == 1 and len({panel.get_xlim() for panel in panels}) == 1


def test_the_page_answers(study: tuple[ReportSpec, Path]) -> None:
    spec, folder = study
    write_tables(spec, folder)
    fabricate.small_figures(folder, spec)
    write_report(spec, folder)
    page = (folder / "report/index.html").read_text(encoding="utf-8")
    assert "50 training examples (60 were asked for, there are no more) at the ends of 2 epochs" in page
    ratio = pd.read_csv(folder / "tables/cartography_ratio.csv")
    row = ratio[(ratio.what == "region") & (ratio.lr_policy == "sqrt")].iloc[0]
    shown = f"{row.ratio:.2f} [{row.low:.2f}, {row.high:.2f}]"
    section = cartography_section(spec, folder)
    assert section.compared is not None and len(section.compared.rows) == 6
    assert section.compared.rows[2][:2] == ["bert", "sqrt"] and section.compared.rows[2][-1] == shown
    assert shown in page and f"{agreement_message(ratio)}." in page
    regions = pd.read_csv(folder / "tables/cartography_regions.csv")
    row = regions[regions.target_batch_size.isna() & (regions.lr_policy == "sqrt")].iloc[0]
    assert f"{row.easy_in_all} examples are easy in all 4 runs, {row.hard_in_all} are hard in all of them" in page
    assert "Which reviews do the models get wrong" not in page
    assert page.count('<img src="data:') == sum(entry.name.endswith(".png") for entry in figure_names(spec))
    assert "hard in all of them" in (folder / "report/summary.md").read_text(encoding="utf-8")


def test_one_run_has_a_map_and_no_comparison(tmp_path: Path) -> None:
    spec = fabricate.spec(**ON, **ONE_RUN)
    fabricate.study_folder(tmp_path, spec, examples=128)
    assert any("there are no two runs to compare" in text for text in drawn(spec, tmp_path))
    fabricate.small_figures(tmp_path, spec)
    section = cartography_section(spec, tmp_path)
    assert section.table is not None and len(section.table.rows) == 2
    assert section.sentences[-1].endswith(
        "the comparison of batch sizes with seeds needs two batch sizes and two seeds."
    )


def test_a_budget_in_updates_says_what_is_compared(tmp_path: Path) -> None:
    both = {"short": {"updates": 12}, "long": {"updates": 30}}
    spec = fabricate.spec(**ON, **ONE_MODEL, budgets=both)
    fabricate.study_folder(tmp_path, spec, examples=128)
    assert any("the runs end 1 epoch at equal samples seen, and 2 are needed" in text for text in drawn(spec, tmp_path))
    fabricate.small_figures(tmp_path, spec)
    said = cartography_section(spec, tmp_path).sentences
    assert any(one.startswith("bert, short: no map, because the runs end 1 epoch") for one in said)
    assert any("at the ends of 3 of up to 15 epochs" in one and one.startswith("bert, long") for one in said)


def test_without_it_the_errors_say_what_to_set(tmp_path: Path) -> None:
    (sentence,) = cartography_section(fabricate.spec(), tmp_path).sentences
    assert "`keep: all` and `insight.cartography.enabled: true`" in sentence


def test_messages_follow_the_numbers() -> None:
    ends = pd.DataFrame({"low": [1.1, 0.8, None], "high": [1.4, 0.9, None]})
    assert agreement_message(ends).endswith("moves the training examples more in 1 and less in 1 of 2 ratios")
    assert agreement_message(ends[:1]) == "Another batch size moves the training examples more than another seed"
    assert "does not detectably move" in agreement_message(ends.assign(low=0.9, high=1.2))
    cells = {"target_batch_size": [16, 64], "examples": 10, "run_count": 2}
    shares = pd.DataFrame({**cells, "easy": [15, 5]})
    assert map_message(shares, "m") == "m: 75% of the training examples are easy at batch size 16, 25% at 64"
    assert map_message(shares[:1], "m") == "m: 75% of the training examples are easy"
