"""The page: self-contained, escaped, complete, and careful in what it claims."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fabricate
import pandas as pd
import pytest
from PIL import Image

from batchscope.errors import UserError
from batchscope.report.answer import answer
from batchscope.report.catalogue import figure_names
from batchscope.report.page import markdown_cell, write_report
from batchscope.report.tables import write_tables

SPEC = fabricate.spec(report={"title": fabricate.HOSTILE})


class Tags(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


def finish(folder: Path, spec: dict[str, Any], **options: Any) -> Path:
    """A study with its tables and with small pictures in place of its figures."""
    write_tables(spec, fabricate.study_folder(folder, spec, examples=256, **options))
    (folder / "figures").mkdir()
    for entry in figure_names(spec):
        Image.new("RGB", (30, 20), "#8a2f6b").save(folder / "figures" / entry.name, format="PNG")
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = finish(tmp_path_factory.mktemp("study"), SPEC, title=fabricate.HOSTILE)
    write_report(SPEC, folder)
    return folder


@pytest.fixture(scope="module")
def html(study: Path) -> str:
    return (study / "report/index.html").read_text(encoding="utf-8")


def test_the_page_needs_nothing_but_itself(html: str) -> None:
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    tags = Tags()
    tags.feed(html)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags.found}
    sources = [attributes["src"] for _, attributes in tags.found if "src" in attributes]
    assert sources
    assert all(source and source.startswith("data:image/") for source in sources)
    targets = {attributes["id"] for _, attributes in tags.found if "id" in attributes}
    links = [attributes["href"] for tag, attributes in tags.found if tag == "a"]
    assert links
    assert all(link and link.startswith("#") and link[1:] in targets for link in links)


def test_hostile_text_stays_text(study: Path, html: str) -> None:
    assert "<script" not in html
    assert "<b>bold" not in html
    assert html.count("&lt;script&gt;") >= 4
    summary = (study / "report/summary.md").read_text(encoding="utf-8")
    assert "<script" not in summary


def test_every_figure_but_the_svg_twins_is_on_the_page(html: str) -> None:
    assert html.count("<img ") == sum(entry.name.endswith(".png") for entry in figure_names(SPEC))


def test_the_noise_scale_is_on_the_page_only_where_it_is_measured(tmp_path: Path, html: str) -> None:
    assert "noise scale" not in html.lower()
    spec = fabricate.spec(noise_scale="cheap")
    write_report(spec, finish(tmp_path, spec))
    page = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    assert page.count("<img ") == sum(entry.name.endswith(".png") for entry in figure_names(spec))
    assert "Dropout draws its masks anew" in page
    assert "has no estimate" in page
    assert '<td class="number">–</td>' in page, "16 is one micro-batch"


def test_page_and_summary_show_the_certificate(study: Path, html: str) -> None:
    summary = (study / "report/summary.md").read_text(encoding="utf-8")
    row = "Elsewhere 1.0 | 4.0000 | 3.0000 | 3.5000 | 3.0e+00 | 4.0000 | 4.00× |"
    assert row in summary
    cells = re.sub(r"<[^>]+>", " ", html.replace("</td>", " |"))
    assert row.replace(" ", "") in re.sub(r"\s", "", cells)
    for shown in (html, summary):
        assert "exact, both engines bit for bit" in shown
        assert "Certified: as fabricated." in shown
        assert "not installed" in shown
        assert "tail: naive" not in shown


def test_a_failed_certificate_is_seen_before_the_table(tmp_path: Path) -> None:
    spec = fabricate.spec(seeds=[1], tail="naive")
    folder = finish(tmp_path, spec)
    failed = fabricate.CERTIFICATE | {"passed": False, "verdict": "NOT certified: broken."}
    (folder / "certificates/bert.json").write_text(json.dumps(failed))
    write_report(spec, folder)
    for name in ("index.html", "summary.md"):
        shown = (folder / "report" / name).read_text(encoding="utf-8")
        assert "modernbert: Certified: as fabricated. bert: NOT certified: broken." in shown
        assert "tail: naive" in shown


def test_page_and_summary_show_the_computed_numbers(study: Path, html: str) -> None:
    row = pd.read_csv(study / "tables/summary.csv").iloc[0]
    shown = f"{row.test_accuracy_mean:.4f} ± {row.test_accuracy_sd:.4f}"
    assert shown in html
    assert shown in (study / "report/summary.md").read_text(encoding="utf-8")
    assert "test 0.7800" in html


def test_markdown_tables_have_as_many_cells_as_columns(study: Path) -> None:
    lines = (study / "report/summary.md").read_text(encoding="utf-8").splitlines()
    tables = re.findall(r"(?:^\|.*\n)+", "\n".join(lines) + "\n", flags=re.MULTILINE)
    assert len(tables) == 7
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_markdown_cells_hold_no_markup() -> None:
    assert markdown_cell("a|b <script> p < .001") == "a\\|b &lt;script> p < .001"


def test_one_seed_without_a_difference_claims_nothing(tmp_path: Path) -> None:
    spec = fabricate.spec(seeds=[42])
    said = say(spec, finish(tmp_path, spec, effect=0.0))
    assert said.startswith("No difference between target batch sizes is established.")
    assert "not evidence of no effect" in said
    assert "variation from seed to seed is not measured" in said


def test_one_seed_with_a_difference_does_not_call_it_the_batch_size(tmp_path: Path) -> None:
    spec = fabricate.spec(seeds=[42])
    said = say(spec, finish(tmp_path, spec, effect=0.15))
    assert "not yet the batch size" in said
    assert "variation from seed to seed is not measured" in said
    assert "smaller batch is the more accurate" in said


def test_several_seeds_that_agree_say_yes_under_this_budget(tmp_path: Path) -> None:
    said = say(fabricate.spec(), finish(tmp_path, fabricate.spec(), effect=0.25, test=600))
    assert said.startswith("Yes, for ")
    assert "under this budget" in said
    assert "fewer updates" in said


def test_seeds_that_disagree_are_not_a_difference() -> None:
    rows = contrast(seed=1, difference=8.0, p=0.001) + contrast(seed=2, difference=-8.0, p=0.001)
    results = pd.DataFrame({"target_batch_size": [16, 64], "updates": [40, 10]})
    said = answer(fabricate.spec(), results, pd.DataFrame(rows))
    assert said.headline == "No difference between target batch sizes repeats over the seeds."


def test_one_batch_size_has_nothing_to_compare(tmp_path: Path) -> None:
    spec = fabricate.spec(target_batch_sizes=[16])
    folder = finish(tmp_path, spec)
    write_report(spec, folder)
    assert "nothing to compare" in (folder / "report/index.html").read_text(encoding="utf-8")


def test_a_missing_figure_is_named(tmp_path: Path) -> None:
    spec = fabricate.spec(seeds=[1])
    folder = finish(tmp_path, spec)
    (folder / "figures/cost.png").unlink()
    with pytest.raises(UserError, match=r"cost\.png"):
        write_report(spec, folder)


def say(spec: dict[str, Any], folder: Path) -> str:
    """Headline and sentences for a study's tables."""
    results, contrasts = (
        pd.read_parquet(folder / "tables/results.parquet"),
        pd.read_csv(folder / "tables/contrasts.csv"),
    )
    return " ".join([(said := answer(spec, results, contrasts)).headline, *said.sentences])


def contrast(seed: int, difference: float, p: float) -> list[dict[str, Any]]:
    """One row of the contrasts table."""
    return [
        {
            "model": "bert",
            "lr_policy": "constant",
            "seed": seed,
            "smaller_batch": 16,
            "larger_batch": 64,
            "n": 300,
            "smaller_accuracy": 0.8,
            "larger_accuracy": 0.8 + difference / 100,
            "difference_points": difference,
            "standard_error_points": 3.0,
            "paired_standard_error_points": 2.0,
            "mcnemar_p": p,
            "mcnemar_p_holm": p,
            "comparisons": 2,
        }
    ]
