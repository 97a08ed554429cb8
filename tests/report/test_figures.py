"""Figures: the catalogue is what gets written, and curves are honest averages."""

from pathlib import Path

import fabricate
import pandas as pd
import pytest
from PIL import Image

from batchscope.config.study import Study
from batchscope.errors import UserError
from batchscope.report.catalogue import figure_names
from batchscope.report.figures import draw_figures, quality_cost_figure
from batchscope.report.style import batch_colours
from batchscope.report.tables import write_tables

CAPTIONS = Path(__file__).parents[2] / "workflow" / "report"
ONE_CELL = {
    "models": {"bert": {"architecture": "bert"}},
    "target_batch_sizes": [64],
    "lr_policies": {"constant": {"base_lr": 1e-3}},
    "seeds": [3],
    "attention": {"texts": ["A fine film."]},
}


GRID = {"target_batch_sizes": [16, 64], "noise_scale": "full", "attention": {"texts": ["A fine film."]}}


@pytest.mark.parametrize("changes", [GRID, ONE_CELL], ids=["grid with the noise scale", "one cell"])
def test_every_catalogued_figure_is_written_and_no_other(tmp_path: Path, changes: dict[str, object]) -> None:
    spec = fabricate.spec(**changes)
    write_tables(spec, fabricate.study_folder(tmp_path, spec, examples=512))
    draw_figures(spec, tmp_path)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {entry.name for entry in figure_names(spec)}
    for path in (tmp_path / "figures").glob("*.png"):
        assert path.stat().st_size < 250_000
        assert len(Image.open(path).getcolors()) > 10


def test_catalogue_follows_the_config_not_the_alphabet() -> None:
    spec = fabricate.spec()
    training = [entry.labels["model"] for entry in figure_names(spec) if entry.caption == "training"]
    assert list(dict.fromkeys(training)) == ["modernbert", "bert"]


def test_the_noise_scale_has_figures_only_where_it_is_measured() -> None:
    def of(kind: str) -> list[str]:
        return [e.name for e in figure_names(fabricate.spec(noise_scale=kind)) if e.caption == "noise_scale"]

    assert of("off") == []
    assert of("cheap") == of("full") == [f"noise_scale_{m}.{f}" for m in ("modernbert", "bert") for f in ("png", "svg")]


def test_catalogue_names_are_unique_and_captions_exist() -> None:
    entries = figure_names(fabricate.spec(noise_scale="cheap"))
    assert len({entry.name for entry in entries}) == len(entries)
    assert all((CAPTIONS / f"{entry.caption}.rst").is_file() for entry in entries)
    for category in {entry.category for entry in entries}:
        columns = {tuple(sorted(entry.labels)) for entry in entries if entry.category == category}
        assert len(columns) == 1


@pytest.mark.parametrize("texts", [[], ["One.", "Two."]])
def test_review_names_are_the_studys(texts: list[str]) -> None:
    config = {
        "study": "s",
        "data": {"source": "synthetic"},
        "models": {"bert": {"architecture": "bert"}},
        "target_batch_sizes": [16],
        "lr_policies": {"constant": {"base_lr": 1e-3}},
        "attention": {"texts": texts},
    }
    study = Study.from_mapping(config)
    assert study.report_spec().review_names == study.review_names()


def test_palette_replaces_the_scale() -> None:
    own = ["#112233", "#445566", "#778899"]
    assert batch_colours(fabricate.spec(report={"palette": own})) == dict(zip([16, 64, 256], own, strict=True))
    assert len(set(batch_colours(fabricate.spec()).values())) == 3


def test_figures_without_tables_say_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tables"):
        draw_figures(fabricate.spec(), tmp_path)


def test_quality_against_cost_marks_every_run_once_and_energy_where_it_was_measured(tmp_path: Path) -> None:
    spec = fabricate.spec()
    folder = fabricate.study_folder(tmp_path, spec, examples=512)
    write_tables(spec, folder)
    results = pd.read_parquet(folder / "tables/results.parquet")
    runs = results[~results.shared]
    figure = quality_cost_figure(spec, results)
    assert [axis.get_xlabel() for axis in figure.axes] == ["seconds per run"] * 2
    for axis, model in zip(figure.axes, ["modernbert", "bert"], strict=True):
        drawn = sorted(mark for line in axis.lines for mark in zip(line.get_xdata(), line.get_ydata(), strict=True))
        mine = runs[runs.model == model]
        assert drawn == sorted(zip(mine.seconds, mine.test_accuracy, strict=True))

    measured = results.assign(energy_joules=3600.0 * results.seed)
    figure = quality_cost_figure(spec, measured)
    assert [axis.get_xlabel() for axis in figure.axes] == ["seconds per run"] * 2 + ["energy of the card, Wh"] * 2
    assert {energy for line in figure.axes[2].lines for energy in line.get_xdata()} == {1.0, 2.0}
    partly = measured.assign(energy_joules=[None, *measured.energy_joules[1:]])
    assert len(quality_cost_figure(spec, partly).axes) == 2, "a cost that some runs lack is not drawn"
