"""`batchscope forensics`: the reference study's numbers, and the files for machines."""

from pathlib import Path

import pandas as pd
import pytest

from batchscope.cli.main import main
from batchscope.config.forensics import read_forensics
from batchscope.report.forensics import Findings, in_words

REFERENCE = "config/forensics/reference-study.yaml"


@pytest.fixture(scope="module")
def found(root: Path) -> Findings:
    file = read_forensics(root / REFERENCE)
    sources = {name: study.source for name, study in file.studies.items()}
    return Findings.of(file.title, sources, file.level, file.reported())


def test_nothing_within_a_model_of_the_reference_study_survives(found: Findings) -> None:
    rows = [row for row in found.contrasts if row.study == "reference" and row.factor == "batch"]
    assert len(rows) == 12
    assert round(max(abs(row.z) for row in rows), 2) == 2.01
    assert round(min(row.p for row in rows), 3) == 0.045
    assert round(min(row.p_holm for row in rows), 2) == 0.54


def test_modernbert_above_bert_does_survive(found: Findings) -> None:
    (row,) = (
        row for row in found.contrasts if (row.factor, row.policy, row.batch) == ("model", "constant", "64")
    )  # fmt: skip
    assert round(row.p, 4) == 0.0008 and row.p_holm < 0.05


def test_five_bert_accuracies_are_no_count_but_means_of_batches(found: Findings) -> None:
    odd = [row for row in found.accuracies if not row.possible]
    assert {(row.cell.model, row.cell.accuracy) for row in odd} == {
        ("bert", value) for value in (0.9013, 0.9005, 0.8963, 0.8951, 0.8901)
    }
    assert all(row.mean_of_batches for row in found.accuracies if row.cell.study == "reference")


def test_the_text_says_so(found: Findings) -> None:
    text = in_words(found)
    summary = " ".join(text.split("Summary")[1].split())
    assert "12 contrasts between target batch sizes: largest |z| 2.01, smallest Holm-adjusted p .538" in summary
    assert "5 reported values can be no k/5000" in summary
    assert "another seed may reverse them" in summary


def test_the_page_states_what_is_computed(found: Findings, root: Path) -> None:
    page = (root / "docs/reference-study.md").read_text(encoding="utf-8")
    for row in found.contrasts:
        if row.factor == "batch" and row.p_holm < found.level:
            assert f"{row.difference_points:+.2f}".replace("-", "\N{MINUS SIGN}") in page
    assert "2.01" in page and ".54" in page
    for row in found.scatter:
        if row.p < 0.001:
            assert f"{row.q:.1f}" in page


def test_output_holds_the_tables_and_the_forest_plot(tmp_path: Path, root: Path, capsys) -> None:
    main(["forensics", str(root / REFERENCE), "--output", str(tmp_path / "out")])
    assert "Summary" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"accuracies.csv", "contrasts.csv", "trends.csv", "scatter.csv", "forest.png", "forest.svg"}
    table = pd.read_csv(tmp_path / "out/contrasts.csv")
    assert len(table) == 39 and table.p_holm.between(0, 1).all()
    assert len(pd.read_csv(tmp_path / "out/accuracies.csv")) == 24


def test_one_cell_has_no_contrasts_and_no_figure(tmp_path: Path, capsys) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(
        "studies: {mine: {source: a paper, examples: 100, cells: [{model: bert, batch: 16, accuracy: 0.91}]}}"
    )
    main(["forensics", str(path), "--output", str(tmp_path / "out")])
    assert "Contrasts" not in capsys.readouterr().out
    assert not (tmp_path / "out/forest.png").exists()


def test_a_mistake_ends_with_one_message(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("studys: {}")
    with pytest.raises(SystemExit, match="did you mean `studies`"):
        main(["forensics", str(path)])
