"""The section on the geometry: every run is drawn, and the sentences follow the intervals."""

from pathlib import Path

import fabricate
import numpy as np
import pandas as pd
import pytest
from fabricate_geometry import write_geometry_of

from batchscope.report.catalogue import figure_names
from batchscope.report.geometry import geometry_section, headline, sentences
from batchscope.report.geometry_figures import (
    SHARPNESS,
    TABLES,
    Tables,
    cka_figure,
    correlations_figure,
    geometry_figures,
    paths_figure,
    sharpness_figure,
)
from batchscope.report.spec import ReportSpec

ON = {"insight": {"geometry": {"enabled": True}}}
ONE_RUN = {
    **ON,
    "models": {"bert": {"architecture": "bert"}},
    "target_batch_sizes": [64],
    "lr_policies": {"constant": {"base_lr": 1e-3}},
    "seeds": [3],
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReportSpec, Path]:
    spec, folder = fabricate.spec(**ON), tmp_path_factory.mktemp("study")
    fabricate.study_folder(folder, spec, examples=256)
    write_geometry_of(folder, spec)
    return spec, folder


def test_every_catalogued_figure_is_drawn(study: tuple[ReportSpec, Path]) -> None:
    spec, folder = study
    wanted = {entry.name.removesuffix(".png") for entry in figure_names(spec) if entry.category == "Loss geometry"}
    assert {name for name in wanted if not name.endswith(".svg")} == set(geometry_figures(spec, folder / "tables"))
    off = fabricate.spec()
    assert not [entry for entry in figure_names(off) if entry.category == "Loss geometry"]
    assert geometry_section(off, folder) is None


def test_every_run_is_a_mark_in_every_panel(study: tuple[ReportSpec, Path]) -> None:
    spec, folder = study
    runs = Tables.read(folder / "tables").runs
    mine = runs[(runs.model == "bert") & (runs.checkpoint == "best")]
    figure = sharpness_figure(spec, runs[runs.model == "bert"], "bert")
    assert len(figure.axes) == 8
    for axis in figure.axes[:4]:
        assert sorted(line.get_xdata()[0] for line in axis.lines) == sorted(mine.lr_sum)
    for axis in figure.axes[4:]:
        assert sorted(line.get_ydata()[0] for line in axis.lines) == sorted(mine.test_accuracy)
    without = sharpness_figure(spec, runs[runs.model == "bert"].drop(columns="eigenvalue_1"), "bert")
    assert len(without.axes) == 6


def test_ticks_of_values_far_apart_are_plain_numbers(study: tuple[ReportSpec, Path]) -> None:
    """Matplotlib's own labels of a logarithmic axis are mathematics, which no figure parses."""
    spec, folder = study
    runs = Tables.read(folder / "tables").runs
    far = runs[runs.model == "bert"].assign(lr_sum=lambda rows: np.geomspace(1e-4, 4e-2, len(rows)))
    far = far.assign(eigenvalue_1=np.geomspace(3, 4000, len(far)))
    figure = sharpness_figure(spec, far, "bert")
    figure.draw_without_rendering()
    logarithmic = [axis.xaxis for axis in figure.axes if axis.get_xscale() == "log"]
    assert len(logarithmic) > 4, "nothing is far apart"
    for axis in logarithmic:
        shown = [tick.get_text() for tick in axis.get_ticklabels(which="both") if tick.get_text()]
        assert len(shown) > 1
        assert all(float(text.replace(",", "")) > 0 for text in shown), shown


def test_every_pair_has_its_line_and_its_mark(study: tuple[ReportSpec, Path]) -> None:
    spec, folder = study
    tables = Tables.read(folder / "tables")
    pairs, paths = (table[table.model == "bert"] for table in (tables.pairs, tables.paths))
    lines = [line for axis in paths_figure(spec, paths, "bert").axes for line in axis.lines]
    assert sum(len(line.get_xdata()) > 2 for line in lines) == len(pairs)
    (axis,) = cka_figure(spec, pairs).axes
    marks = [value for line in axis.lines[:-1] for value in line.get_ydata()]
    assert sorted(marks) == sorted(pairs.cka)


def correlations(partial: dict[str, tuple[float, float]], accuracy: tuple[float, float] = (-0.1, 0.1)) -> pd.DataFrame:
    rows = [
        {"checkpoint": "best", "measure": name, "accuracy": np.mean(accuracy), "partial": np.mean(ends)}
        | {"accuracy_low": accuracy[0], "accuracy_high": accuracy[1], "partial_low": ends[0], "partial_high": ends[1]}
        for name, ends in partial.items()
    ]
    rows.append(rows[0] | {"measure": "distance", "partial_low": 0.8, "partial_high": 0.9})
    return pd.DataFrame(rows)


def test_the_headline_follows_the_intervals() -> None:
    open_end = dict.fromkeys(SHARPNESS, (-0.4, 0.4))
    nothing = headline(correlations(open_end))
    assert nothing.startswith("Sharpness is not shown to go with accuracy; at an equal sum")
    explained = headline(correlations(open_end, accuracy=(-0.9, -0.3)))
    assert explained.startswith("Sharpness goes with test accuracy in 7 of 7 rank correlations; at an equal sum")
    lower = headline(correlations(open_end | {"adaptive": (-0.9, -0.2)}))
    assert "sharper goes with lower accuracy in 1 of 7 rank correlations" in lower
    both = headline(correlations(open_end | {"adaptive": (-0.9, -0.2), "average": (0.1, 0.4)}))
    assert "lower accuracy in 1 and higher accuracy in 1 of 7" in both
    assert "too few runs" in headline(pd.DataFrame({"checkpoint": ["best"], "reason": ["few"]}))


def test_a_study_of_one_run_says_what_it_cannot_tell(tmp_path: Path) -> None:
    spec = fabricate.spec(**ONE_RUN)
    fabricate.study_folder(tmp_path, spec, examples=256)
    write_geometry_of(tmp_path, spec, eigenvalues=0, change=lacking)
    assert set(geometry_figures(spec, tmp_path / "tables")) >= {"geometry_cka", "geometry_correlations"}
    tables = Tables.read(tmp_path / "tables")
    for figure in (cka_figure(spec, tables.pairs), paths_figure(spec, tables.paths, "bert")):
        assert not figure.axes and any("no two runs" in text.get_text() for text in figure.texts)
    few = correlations_figure(spec, tables.correlations)
    assert not few.axes and any("1 run: too few" in text.get_text() for text in few.texts)
    said = " ".join(sentences(spec, tables))
    assert "bert: 1 run: too few" in said and "no eigenvalues: it has none (2 checkpoints)" in said
    assert "64 training examples were measured, 500 were asked for" in said


def lacking(found: dict) -> None:
    found["asked"] = 500
    found["best"]["hessian_reason"] = "no eigenvalues: it has none"


def test_the_page_has_the_section_with_every_figure(study: tuple[ReportSpec, Path]) -> None:
    spec, folder = study
    fabricate.small_figures(folder, spec)
    section = geometry_section(spec, folder)
    assert section is not None
    drawn = [entry for entry in figure_names(spec) if entry.category == "Loss geometry" and entry.name.endswith("png")]
    assert len(section["figures"]) == len(drawn)
    assert len(section["table"].rows) == len(spec.model_names) * len(spec.policy_names) * len(spec.batch_sizes)
    assert all("nan" not in cell for row in section["table"].rows for cell in row)
    read = pd.read_csv(folder / "tables/geometry_correlations.csv")
    assert len(section["correlations"].rows) == read.accuracy.notna().sum() and set(read.run_count) == {10}
    assert all((folder / f"tables/{name}.csv").is_file() for name in TABLES)
