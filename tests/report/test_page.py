"""The page: self-contained, escaped, complete, and careful in what it claims."""

import base64
import hashlib
import json
import math
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fabricate
import numpy as np
import pandas as pd
import pytest

from batchscope.errors import UserError
from batchscope.report.answer import answer
from batchscope.report.catalogue import figure_names
from batchscope.report.findings import read_findings
from batchscope.report.forest import forest_figure
from batchscope.report.numbers import points
from batchscope.report.page import markdown_cell, write_report
from batchscope.report.spec import ReportSpec
from batchscope.report.tables import summarise, write_tables
from batchscope.report.verdicts import family_in_words, needed_in_words, verdict_in_words
from batchscope.report.visible import with_code
from batchscope.statistics.conclusions import conclude
from batchscope.statistics.contrasts import findings
from batchscope.statistics.families import planned

SPEC = fabricate.spec(report={"title": fabricate.HOSTILE})


class Tags(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


def finish(folder: Path, spec: ReportSpec, **options: Any) -> Path:
    """A study with its tables and with small pictures in place of its figures."""
    write_tables(spec, fabricate.study_folder(folder, spec, examples=256, **options))
    fabricate.small_figures(folder, spec)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = finish(tmp_path_factory.mktemp("study"), SPEC, title=fabricate.HOSTILE)
    write_report(SPEC, folder)
    return folder


@pytest.fixture(scope="module")
def html(study: Path) -> str:
    return (study / "report/index.html").read_text(encoding="utf-8")


def without_scripts(html: str) -> str:
    """The page without the text of its scripts and of their data."""
    return re.sub(r"(<script[^>]*>).*?(</script>)", r"\1\2", html, flags=re.S)


def test_the_page_needs_nothing_but_itself(html: str) -> None:
    shown = without_scripts(html)
    assert "http://" not in shown
    assert "https://" not in shown
    assert "url(" not in shown
    tags = Tags()
    tags.feed(html)
    assert not {"link", "iframe", "object"} & {tag for tag, _ in tags.found}
    sources = [attributes["src"] for _, attributes in tags.found if "src" in attributes]
    assert sources
    assert all(source and source.startswith("data:image/") for source in sources)
    targets = {attributes["id"] for _, attributes in tags.found if "id" in attributes}
    links = [attributes["href"] for tag, attributes in tags.found if tag == "a"]
    assert links
    assert all(link and link.startswith("#") and link[1:] in targets for link in links)


def test_the_browser_may_run_the_scripts_of_the_page_and_nothing_else(html: str) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in unescape(policy[1]).split(";"))
    assert rules["default-src"] == "'none'"
    ours = re.findall(r"<script>(.*?)</script>", html, flags=re.S)
    assert ours
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in ours]
    assert rules["script-src"].split() == hashes


def test_hostile_text_stays_text(study: Path, html: str) -> None:
    assert "pwned" in html
    shown = re.sub(r"<script>.*?</script>", "", html, flags=re.S)
    assert all("<" not in data for data in re.findall(r"<script type=[^>]*>(.*?)</script>", shown, flags=re.S))
    assert "<script>" not in shown
    assert "<b>bold" not in html
    assert html.count("&lt;script&gt;") >= 4
    summary = (study / "report/summary.md").read_text(encoding="utf-8")
    assert "<script" not in summary


def test_a_name_in_backticks_is_set_as_code_and_nothing_else_is_markup() -> None:
    assert with_code("`<b>` & `keep: all`") == "`&lt;b&gt;` &amp; <code>keep: all</code>"


def test_every_figure_but_the_svg_twins_is_on_the_page(html: str) -> None:
    assert without_scripts(html).count("<img ") == sum(entry.name.endswith(".png") for entry in figure_names(SPEC))


def test_the_noise_scale_is_on_the_page_only_where_it_is_measured(tmp_path: Path, html: str) -> None:
    assert "noise scale" not in html.lower()
    spec = fabricate.spec(noise_scale="cheap", branch={"at": [256], "samples": 512})
    write_report(spec, finish(tmp_path, spec))
    page = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    assert without_scripts(page).count("<img ") == sum(entry.name.endswith(".png") for entry in figure_names(spec))
    assert "Dropout draws its masks anew" in page
    assert "has no estimate" in page
    assert "can be far below the critical batch size" in page
    assert "the measured critical batch size is 64 (4 × the run&#39;s)" in page
    assert "0.0050" in page, "the difference of that branch"
    assert 'class="number">–</td>' in page, "16 is one micro-batch"


def test_page_and_summary_show_the_certificate(study: Path, html: str) -> None:
    summary = (study / "report/summary.md").read_text(encoding="utf-8")
    row = "Elsewhere 1.0 | 4.00× | 4.0000 | 3.0000 | 3.5000 | 3.0e+00 | 4.0000 |"
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
    assert len(tables) == 12
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_markdown_cells_hold_no_markup() -> None:
    assert markdown_cell("a|b <script> p < .001") == "a\\|b &lt;script> p < .001"


ONE_MODEL = {"models": {"bert": {"architecture": "bert"}}, "lr_policies": {"constant": {"base_lr": 1e-3}}}


def test_one_seed_speaks_of_trained_models_alone(tmp_path: Path) -> None:
    spec = fabricate.spec(seeds=[42])
    said = say(spec, finish(tmp_path, spec, effect=0.15))
    assert re.match(
        r"One seed cannot answer this\. \d+ of 8 pairs of trained models differ on reviews like these\.", said
    )
    assert "variation from seed to seed is not measured" in said
    assert "√(err/(2N)), which is a lower bound" in said
    assert re.search(
        r"From 1 seed and 300 test reviews, a contrast finds at best a true difference of \d+\.\d\d points", said
    )
    different = [one for one in read_findings(tmp_path) if one.verdict == "different"]
    assert different
    for finding in different:
        verdict = verdict_in_words(finding, spec.claims, {})
        assert verdict.startswith("These two trained models, ")
        assert "batch" not in verdict


def test_a_difference_between_seeds_and_reviews_says_yes_under_this_budget(tmp_path: Path) -> None:
    spec = fabricate.spec(**ONE_MODEL, seeds=[1, 2, 3, 4, 5])
    said = say(spec, finish(tmp_path, spec, effect=0.12, test=600))
    assert said.startswith("Yes, in 2 of 2 contrasts of target batch sizes, under this budget.")
    assert "for seeds and reviews like these, after Holm's correction over 2 contrasts at 5%: 2 different" in said
    assert "In all different ones, the smaller target batch size is the more accurate." in said
    assert "fewer updates" in said
    largest = max(read_findings(tmp_path), key=lambda one: abs(one.difference_points))
    assert f"The largest difference is {points(largest.difference_points)} points (95% interval " in said


def test_no_difference_and_a_wide_margin_say_no(tmp_path: Path) -> None:
    spec = fabricate.spec(**ONE_MODEL, seeds=[1, 2, 3, 4, 5], claims={"margin": 12})
    said = say(spec, finish(tmp_path, spec, effect=0.0, test=600))
    assert said.startswith("No: all 2 contrasts are equivalent within 12 points.")
    assert "That is enough for the margin of 12 points." in said
    one = fabricate.spec(**ONE_MODEL, target_batch_sizes=[16, 64], seeds=[1, 2, 3, 4, 5], claims={"margin": 12})
    said = say(one, finish(tmp_path / "one", one, effect=0.0, test=600))
    assert said.startswith("No: the contrast is equivalent within 12 points.")


def test_a_study_that_is_too_small_says_what_it_needs(tmp_path: Path) -> None:
    spec = fabricate.spec(**ONE_MODEL)
    said = say(spec, finish(tmp_path, spec, effect=0.0))
    assert said.startswith("No difference between target batch sizes is established, and none is excluded.")
    assert "2 underpowered" in said
    assert re.search(r"The margin of 0\.5 points needs [\d,]+ seeds|needs both more seeds and more", said)
    finding = read_findings(tmp_path)[0]
    assert finding.verdict == "underpowered"
    told = verdict_in_words(finding, spec.claims, {})
    assert told.startswith("bert, constant LR policy, target batch sizes 16 and 64: underpowered. The difference is ")
    assert "for 0.5 points it needs " in told
    blind = verdict_in_words(finding._replace(smallest_points=700.0), spec.claims, {})
    assert "It finds no difference, however large, with 80% power" in blind
    never = verdict_in_words(finding._replace(more_seeds=math.inf, more_reviews=40.0), spec.claims, {})
    assert "it needs 40 more test reviews (no number of seeds is enough with these reviews)." in never
    assert needed_in_words(3e8, 3000.0, more=True) == "over a million more seeds, or 3,000 more test reviews"


def test_an_interval_of_two_seeds_that_seems_to_contradict_its_verdict_says_so(tmp_path: Path) -> None:
    """Both seeds gain the same on a hundred reviews and something on two others: p is small, and the interval is that
    of one degree of freedom.
    """
    spec = fabricate.spec(**ONE_MODEL, target_batch_sizes=[16, 64])
    before = np.zeros(5000, dtype=bool)
    runs = {cell.run: before.copy() for cell in spec.cells}
    for cell in spec.cells:
        if cell.batch == 64:
            runs[cell.run][: 100 + cell.seed] = True
    (finding, _) = findings(planned(spec.cells, spec.claims), runs, (), spec.claims)
    assert (finding.estimand, finding.seeds, finding.verdict) == ("population", 2, "different")
    assert finding.low_points < 0 < finding.high_points
    note = "With two seeds, the 95% interval is conservative"
    assert note in verdict_in_words(finding, spec.claims, {}) and note in family_in_words([finding], spec.claims)
    alike = finding._replace(verdict="equivalent", low_points=-1.0, high_points=0.4)
    assert note in verdict_in_words(alike, spec.claims, {})
    for clear in (
        finding._replace(low_points=0.1),
        finding._replace(seeds=3),
        finding._replace(verdict="underpowered"),
        alike._replace(low_points=-0.4),
        finding._replace(estimand="these_reviews"),
    ):
        assert note not in verdict_in_words(clear, spec.claims, {}) + family_in_words([clear], spec.claims)


def test_a_faulty_contrast_says_so_first(tmp_path: Path) -> None:
    spec, run = fabricate.spec(**ONE_MODEL), "bert/bs64/constant/seed1"
    finish(tmp_path, spec, collapsed=[run])
    finding = next(one for one in read_findings(tmp_path) if one.faulty)
    said = verdict_in_words(finding, spec.claims, {run: "predicts positive for every test review"})
    assert said == (
        "bert, constant LR policy, target batch sizes 16 and 64: no verdict. A run of it did not learn: bert, 64, "
        "constant, seed 1 (predicts positive for every test review). Its difference is not read as an effect."
    )


def test_shared_cells_and_faulty_runs_are_marked_in_the_results(tmp_path: Path) -> None:
    spec = fabricate.spec(models={"bert": {"architecture": "bert"}})
    write_report(spec, finish(tmp_path, spec, collapsed=["bert/bs256/constant/seed1"]))
    summary = (tmp_path / "report/summary.md").read_text(encoding="utf-8")
    rows = {line.split(" | ")[1]: line for line in summary.partition("## Results")[2].splitlines() if " | " in line}
    assert rows["16"].endswith(" † |")
    assert "†" not in rows["64"] + rows["256"]
    assert rows["256"].endswith(" ‡ |")
    assert "† reads the runs of another LR policy" in summary
    assert "‡ includes a run that did not learn" in summary
    assert "1 of 10 runs did not learn: bert, 256, constant, seed 1" in summary


def test_a_study_without_attention_says_why(tmp_path: Path) -> None:
    spec = fabricate.spec(seeds=[1])
    reasons = dict.fromkeys(spec.model_names, "The encoder gives no weights.")
    write_report(spec, finish(tmp_path, spec, no_attention=reasons))
    page = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    assert "bert: The encoder gives no weights." in page
    assert "attention of the last layer for the review" not in page


def test_three_classes_have_their_recall_and_their_confusion(tmp_path: Path) -> None:
    spec = fabricate.spec(seeds=[1], models={"bert": {"architecture": "bert"}})
    story = {"classes": ["bill", "outage", "praise"], "shares": (0.1, 0.7, 0.2)}
    write_report(spec, finish(tmp_path, spec, **story))
    page = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    classes = pd.read_csv(tmp_path / "tables/classes.csv").query("split == 'test' and checkpoint == 'best'")
    for recall in classes.recall:
        assert f">{100 * recall:.1f}%</td>" in page
    assert "predicted outage" in page and "test reviews of 3 classes" in page
    assert "A stable classifier of 3 classes would have an SD over seeds of at most" in page
    assert "lower bound" not in page, "√(err/(2N)) is one for two classes alone"


def test_what_was_left_out_is_shown_with_its_reason(tmp_path: Path) -> None:
    spec = fabricate.spec(seeds=[1], models={"bert": {"architecture": "bert"}})
    write_report(spec, finish(tmp_path, spec, left_out=[("train/._x.txt", "hidden file")]))
    page = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    assert "train/._x.txt</td>" in page
    assert "hidden file</td>" in page


def test_one_batch_size_has_nothing_to_compare(tmp_path: Path) -> None:
    spec = fabricate.spec(target_batch_sizes=[16], **ONE_MODEL)
    folder = finish(tmp_path, spec)
    write_report(spec, folder)
    page = (folder / "report/index.html").read_text(encoding="utf-8")
    assert "nothing to compare" in page and "Add values to <code>target_batch_sizes</code> to see" in page
    assert forest_figure(spec, read_findings(folder)).axes


def test_a_missing_figure_is_named(tmp_path: Path) -> None:
    spec = fabricate.spec(seeds=[1])
    folder = finish(tmp_path, spec)
    (folder / "figures/cost.png").unlink()
    with pytest.raises(UserError, match=r"cost\.png"):
        write_report(spec, folder)


def test_texts_are_called_what_the_config_calls_them(tmp_path: Path) -> None:
    """On the whole page, but for what is the user's own: title, texts and names of files."""
    changes = {"data": {"source": "synthetic", "unit": "issue"}, "report": {"title": "My reviews"}, "seeds": [1]}
    spec = fabricate.spec(models={"bert": {"architecture": "bert"}}, **changes)
    folder = finish(tmp_path, spec, left_out=[("reviews.xlsx", "not read")])
    write_report(spec, folder)
    page = (folder / "report/index.html").read_text(encoding="utf-8")
    prose = re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", page, flags=re.S)
    own = re.compile(r"My reviews|reviews\.xlsx")
    assert "review" not in own.sub("", prose).lower()
    assert "300 issues" in prose and "issues whose text also appears in train" in prose and "Issues per split" in page
    summary = (folder / "report/summary.md").read_text(encoding="utf-8")
    assert "review" not in own.sub("", summary).lower()


def say(spec: ReportSpec, folder: Path) -> str:
    """Headline and sentences for a study's tables."""
    results = pd.read_parquet(folder / "tables/results.parquet")
    said = answer(spec, results, summarise(results), conclude(read_findings(folder)))
    return " ".join([said.headline, *said.sentences])


def test_what_there_is_one_of_is_in_the_singular(tmp_path: Path) -> None:
    spec = fabricate.spec(**ONE_MODEL, target_batch_sizes=[16, 64], seeds=[1])
    write_report(spec, finish(tmp_path, spec))
    shown = re.sub(r"<[^>]+>", " ", without_scripts((tmp_path / "report/index.html").read_text(encoding="utf-8")))
    wrong = r"(?<![\d.,])1 (contrasts|runs|seeds|models|reviews|batch sizes|updates|epochs|cells|policies)\b"
    assert "over 1 contrast at 5%" in shown
    assert not re.findall(wrong, shown)
