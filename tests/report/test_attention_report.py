"""Attention over many reviews in figures and page: the answer in words, kinds of layers kept apart, what is missing."""

from pathlib import Path

import fabricate
import numpy as np
import pandas as pd
import pytest

from batchscope.report.attention import AttentionSection, attention_section, ratio_in_words
from batchscope.report.attention_figures import (
    AttentionTables,
    attention_figures,
    divergence_figure,
    keys_figure,
    layer_means,
    strongest_class,
    verdict,
)
from batchscope.report.catalogue import figure_names
from batchscope.report.page import write_report
from batchscope.report.style import PAPER
from batchscope.report.tables import write_tables

ON = {"insight": {"attention": {"enabled": True}}}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory):
    """A study with global and sliding layers, and a model that gives no attention."""
    spec = fabricate.spec(**ON)
    folder = tmp_path_factory.mktemp("study")
    fabricate.study_folder(folder, spec, examples=256, no_attention={"bert": "The bert encoder gives none."})
    return spec, folder


def ratio_row(**changes: object) -> dict[str, object]:
    row = {"lr_policy": "constant", "attention": "global", "layers": 12, "between_batch_sizes": 0.03}
    row |= {"between_seeds": 0.02, "from_initial": 0.2, "ratio": 1.5, "low": 1.2, "high": 1.9, "seeds": 5}
    return row | {"reviews": 200, "reason": ""} | changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "more than another seed would"),
        ({"ratio": 0.5, "low": 0.4, "high": 0.9}, "less than another seed would"),
        ({"low": 0.9}, "is open"),
        ({"seeds": 2}, "over reviews alone, because there are only two seeds"),
        ({"low": None, "high": None}, "too few seeds for an interval"),
        ({"ratio": None, "low": None, "high": None}, "the attention of two seeds is equal"),
        ({"ratio": np.nan, "low": np.nan, "high": np.nan, "reason": "needs two seeds"}, "it needs two seeds (from the"),
    ],
)
def test_the_ratio_is_answered_in_words(changes: dict[str, object], expected: str) -> None:
    said = ratio_in_words("bert", ratio_row(**changes))
    assert said.startswith("bert, constant LR policy, global layers:") and expected in said
    assert "nan" not in said.replace("–", "")


def test_a_verdict_is_one_where_all_intervals_agree() -> None:
    def of(*intervals: tuple[float | None, float | None]) -> str | None:
        return verdict(pd.DataFrame(intervals, columns=["low", "high"], dtype=float))

    assert of((1.1, 2), (1.2, 3)) == "more than" and of((0.1, 0.5)) == "less than" and of((0.9, 1.1)) == "neither"
    assert of((1.1, 2), (0.9, 1.1)) == "mixed" and of((None, None)) is None


def test_sliding_and_global_layers_share_no_line(study) -> None:
    spec, folder = study
    tables = AttentionTables.read(folder / "tables").of("modernbert", spec.budget_names[0])
    for draw in (divergence_figure, keys_figure):
        for axis in draw(spec, tables, "modernbert", "modernbert").axes:
            marked = [line for line in axis.lines if line.get_marker() not in ("None", "_")]
            assert {tuple(line.get_xdata()) for line in marked} == {(1, 4), (2, 3, 5)}
            for line in marked:
                assert (line.get_markerfacecolor() == PAPER) == (tuple(line.get_xdata()) == (2, 3, 5))


def test_drawn_values_are_the_means_over_heads_then_seeds(study) -> None:
    spec, folder = study
    tables = AttentionTables.read(folder / "tables").of("modernbert", spec.budget_names[0])
    axis = keys_figure(spec, tables, "modernbert", "modernbert").axes[1]
    heads = tables.heads[(tables.heads.target_batch_size == 256) & (tables.heads.lr_policy == spec.policy_names[0])]
    expected = heads[heads.window.isna()].groupby("layer").lift_sep.mean()
    drawn = [line for line in axis.lines if len(line.get_xdata()) == 2 and line.get_linewidth() > 1]
    assert any(np.allclose(line.get_ydata(), expected) for line in drawn)


def test_the_title_names_the_class_that_gets_most(study) -> None:
    _, folder = study
    heads = AttentionTables.read(folder / "tables").heads
    said = strongest_class(layer_means(heads[heads.model == "modernbert"]))
    assert said.startswith("[SEP] or </s> get ") and "function words 0." in said


def test_the_page_answers_and_gives_the_reason_for_a_model_without_attention(study) -> None:
    spec, folder = study
    fabricate.small_figures(folder, spec)
    section = attention_section(spec, folder)
    assert "bert: The bert encoder gives none." in section.sentences
    assert any("modernbert" in said and "95% interval" in said for said in section.sentences)
    assert any("asks for 1,000 reviews; the test split has 40" in said for said in section.sentences)
    assert any("starts from random weights" in said for said in section.sentences)
    assert [title for title, _ in section.figures] == ["modernbert"]
    assert section.ratios and {row[2] for row in section.ratios.rows} == {"2 global", "3 sliding"}
    assert section.keys and len(section.keys.rows) == 2 * 2 * 3
    write_tables(spec, folder)
    write_report(spec, folder)
    page = (folder / "report/index.html").read_text(encoding="utf-8")
    assert "changes the attention more than another seed would" in page and "The bert encoder gives none." in page
    assert "## Attention\n" in (folder / "report/summary.md").read_text(encoding="utf-8")


def test_a_study_of_one_run_says_what_is_missing(tmp_path: Path) -> None:
    one = {"target_batch_sizes": [16], "seeds": [1], "lr_policies": {"constant": {"base_lr": 1e-3}}}
    spec = fabricate.spec(**ON, **one)
    fabricate.study_folder(tmp_path, spec, examples=256)
    drawn = attention_figures(spec, tmp_path / "tables")
    listed = {Path(entry.name).stem for entry in figure_names(spec) if entry.category == "Attention over the test set"}
    assert set(drawn) == listed and len(drawn) == 5 * 2
    fabricate.small_figures(tmp_path, spec)
    section: AttentionSection = attention_section(spec, tmp_path)
    told = ("no ratio of batch size to seed", "asks for", "Without the sinks the margin changes by −0.")
    assert len(section.sentences) == 2 * 3 + 1
    assert all(any(words in said for words in told) for said in section.sentences)
