"""The page in a browser, from disk and without a network: its charts, controls, copies, downloads, and hostile text."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import fabricate
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from once import made_once
from playwright.sync_api import Browser, BrowserContext, Page, expect

from batchscope.report.page import write_report
from batchscope.report.tables import write_tables

HOSTILE = "<script>window.pwned=1</script><img src=x onerror='window.pwned=1'> {{ 7*7 }} datum['x'] $x^2$ \x1b[31mred"
OVERRIDE = "\u202eright to left"
CLASSES = ("</script><script>window.pwned=1</script>" + "x" * 150, "[datum.y].length" + "x" * 150)
SPEC = fabricate.spec(
    target_batch_sizes=[16, 64],
    lr_policies={"constant": {"base_lr": 1e-3}, "tuned": {"sweep": [1e-3, 2e-3]}},
    budgets={"epochs-1": {"epochs": 1}, "updates-12": {"updates": 12}},
    validate_every={"updates": 4},
    noise_scale="cheap",
    report={"title": HOSTILE},
)
FLAGGED = "bert/bs64/constant/epochs-1/seed2"
CHARTS = ["forest", "accuracy", "validation", "sweep", "training", "noise", "quality_cost", "calibration"]


def make(folder: Path) -> None:
    story: dict[str, Any] = {"title": f"{HOSTILE} {OVERRIDE}", "classes": CLASSES, "diverged": [FLAGGED]}
    fabricate.study_folder(folder, SPEC, examples=256, test=100, tokens=8, left_out=[(HOSTILE, OVERRIDE)], **story)
    write_tables(SPEC, folder)
    fabricate.small_figures(folder, SPEC)
    write_report(SPEC, folder)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "browser", make)


@pytest.fixture(scope="module")
def shown(browser: Browser, study: Path) -> Iterator[Page]:
    """The page with all sections open and all charts drawn. A test that changes it puts it back."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True, accept_downloads=True)
    page, faults = context.new_page(), list[str]()
    page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.on("request", lambda request: faults.append(request.url) if request.url.startswith("http") else None)
    page.goto(address(study))
    draw(page)
    yield page
    context.close()
    assert not faults


def address(study: Path) -> str:
    return (study / "report/index.html").as_uri()


def draw(page: Page) -> None:
    """Open every section and wait until its charts are drawn."""
    page.evaluate("document.querySelectorAll('details.section').forEach((one) => { one.open = true; })")
    for name in CHARTS:
        page.locator(f"[data-chart={name}]").scroll_into_view_if_needed()
        page.wait_for_selector(f"[data-chart={name}][data-drawn]", state="attached")


def downloaded(page: Page, chart: str, form: str) -> bytes:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=f"download {chart} as {form}").click()
    assert waiting.value.suggested_filename == f"{chart}.{form.lower()}"
    return Path(waiting.value.path()).read_bytes()


def rows_of(page: Page, chart: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(downloaded(page, chart, "CSV").decode())))


def choose(page: Page, key: str, *values: str) -> None:
    """Select these values of a filter, and no other."""
    page.evaluate(
        """([key, values]) => {
            const form = document.getElementById("filters");
            for (const box of form.querySelectorAll(`[name="${key}"]`)) box.checked = values.includes(box.value);
            form.dispatchEvent(new Event("change"));
        }""",
        [key, list(values)],
    )


@pytest.fixture
def filtered(shown: Page) -> Iterator[Page]:
    yield shown
    shown.get_by_role("button", name="All", exact=True).click()
    expect(shown.locator("[data-scope][hidden]")).to_have_count(0)


def test_every_chart_is_drawn_in_place_of_its_pictures(shown: Page) -> None:
    assert sorted(shown.evaluate("[...document.querySelectorAll('[data-chart]')].map((one) => one.dataset.chart)")) == (
        sorted(CHARTS)
    )
    for name in CHARTS:
        figure = shown.locator(f"[data-chart={name}]")
        assert figure.locator(".chart-area svg .role-mark path").count() > 0, name
        assert figure.locator("img").first.is_hidden()


@pytest.mark.parametrize(
    ("key", "value"),
    [("model", "bert"), ("policy", "constant"), ("batch", "64"), ("budget", "updates-12"), ("seed", "2")],
)
def test_each_filter_leaves_the_rows_and_marks_of_what_is_selected(filtered: Page, key: str, value: str) -> None:
    before = filtered.locator("tr[data-scope]:visible").count()
    choose(filtered, key, value)
    scopes = filtered.evaluate(
        "[...document.querySelectorAll('[data-scope]')].map((one) => [JSON.parse(one.dataset.scope), one.hidden])"
    )
    assert {hidden for _, hidden in scopes} == {True, False}
    for scope, hidden in scopes:
        assert hidden == any(one != value for one in scope.get(key, []))
    assert 0 < filtered.locator("tr[data-scope]:visible").count() < before
    for chart in ("accuracy", "training", "quality_cost"):
        rows = [row for row in rows_of(filtered, chart) if row.get("kind") != "mean"]
        assert {row[key] for row in rows} == {value}, chart


def test_a_filter_redraws_the_charts_in_sight(filtered: Page) -> None:
    figure = filtered.locator("[data-chart=accuracy]")
    figure.scroll_into_view_if_needed()
    assert "modernbert" in figure.locator("svg").inner_html()
    choose(filtered, "model", "bert")
    expect(figure.locator("svg text", has_text="modernbert")).to_have_count(0)
    choose(filtered, "model")
    figure.get_by_text("No run is selected.").wait_for()


def test_the_keyboard_reaches_and_changes_a_filter(filtered: Page) -> None:
    filtered.locator(".pick > summary").first.focus()
    for key in ("Enter", "Tab", "Space"):
        filtered.keyboard.press(key)
    assert filtered.locator("[data-picked=model]").inner_text() == "1 of 2"
    filtered.keyboard.press("Escape")
    assert not filtered.locator(".pick").first.evaluate("(pick) => pick.open")


def test_a_run_that_did_not_learn_is_grey_and_says_why(shown: Page) -> None:
    flagged = [row for row in rows_of(shown, "accuracy") if row["flag"]]
    assert {row["name"] for row in flagged} == {FLAGGED}
    marks = shown.locator("[data-chart=accuracy] svg .role-mark path[fill='var(--grey)']")
    assert marks.count() > 0
    assert "its training loss ended above that of guessing" in flagged[0]["flag"]


def test_the_axis_follows_its_controls(shown: Page) -> None:
    figure = shown.locator("[data-chart=training]")
    figure.scroll_into_view_if_needed()
    for label, option in (("against", "samples seen"), ("show", "training accuracy")):
        figure.get_by_label(label, exact=True).select_option(label=option)
        figure.locator("svg text", has_text=option).first.wait_for()
    smooth = [row["y"] for row in rows_of(shown, "training")]
    figure.get_by_label("smoothing").select_option(label="none")
    raw = rows_of(shown, "training")
    assert [row["y"] for row in raw] != smooth
    single = [row for row in raw if row["kind"] != "mean"]
    assert all(float(row["y"]) == pytest.approx(float(row["correct"]) / float(row["n"])) for row in single)
    figure.get_by_label("log x").check()
    for label in ("against", "show"):
        figure.get_by_label(label, exact=True).select_option(index=0)
    figure.get_by_label("smoothing").select_option(label="3%")
    figure.get_by_label("log x").uncheck()


def test_tables_sort_by_number_and_by_text(shown: Page) -> None:
    table = shown.get_by_role("region", name="Cost of the runs").locator("table")
    place = [text.strip() for text in table.locator("th").all_inner_texts()].index("samples/s")

    def column() -> list[float]:
        cells = table.locator(f"tbody tr td:nth-child({place + 1})").all_inner_texts()
        return [float(text.replace(",", "")) for text in cells]

    heading = table.locator("th").nth(place)
    for order, reverse in (("ascending", False), ("descending", True)):
        heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == order
        assert column() == sorted(column(), reverse=reverse)
    table.locator("th").first.get_by_role("button").click()
    models = table.locator("tbody td:first-child").all_inner_texts()
    assert models == sorted(models) and len(set(models)) == 2


def test_tables_are_copied_as_they_are_shown(filtered: Page) -> None:
    filtered.context.grant_permissions(["clipboard-read", "clipboard-write"])
    choose(filtered, "model", "bert")
    for form, start in (("TSV", "model\tLR policy\tbudget\tbatch size"), ("LaTeX", "\\begin{tabular}{llrr")):
        filtered.get_by_role("button", name=f"copy Cost of the runs as {form}").click()
        filtered.get_by_role("button", name=f"copy Cost of the runs as {form}").get_by_text("copied").wait_for()
        text = filtered.evaluate("navigator.clipboard.readText()")
        assert text.startswith(start.replace("llrr", "lllrr"))
        assert "bert" in text and "modernbert" not in text
    assert "\\toprule" in text and "epochs-1" in text


def test_downloads_hold_the_picture_and_the_data(shown: Page, study: Path) -> None:
    svg = downloaded(shown, "accuracy", "SVG").decode()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "var(--" not in svg and "test accuracy" in svg and "No difference" in svg
    png = downloaded(shown, "accuracy", "PNG")
    assert png.startswith(b"\x89PNG") and len(png) > 10_000
    results = pd.read_csv(study / "tables/results.csv")
    rows = [row for row in rows_of(shown, "accuracy") if row["kind"] != "mean"]
    assert [int(row["correct"]) for row in rows] == results.test_correct.tolist()
    means = [row for row in rows_of(shown, "accuracy") if row["kind"] == "mean"]
    summary = pd.read_csv(study / "tables/summary.csv")
    assert sorted(float(row["y"]) for row in means) == pytest.approx(sorted(summary.test_accuracy_mean))


def test_hostile_text_is_shown_and_never_runs(shown: Page) -> None:
    assert shown.evaluate("window.pwned") is None
    shown_title = HOSTILE.replace("\x1b", "[U+001B]")
    assert shown.locator("h1").inner_text() == shown_title
    assert shown.get_by_text(f"{shown_title} [U+202E]right to left").count() > 0
    recall = shown.locator("[aria-label='Recall of every class']")
    assert all(name in recall.text_content() for name in CLASSES)
    assert shown.evaluate("document.querySelectorAll('img[onerror]').length") == 0
    assert not re.search("[\x1b\u202e]", shown.content())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_for_people_who_need_more_than_a_mouse(
    shown: Page, scheme: str, request: pytest.FixtureRequest
) -> None:
    shown.emulate_media(color_scheme=scheme)
    request.addfinalizer(lambda: shown.emulate_media(color_scheme="light"))
    # Everything once; in the dark what it changes. The marks of charts are hidden from readers of the screen.
    rules = {"resultTypes": ["violations"]} | ({"runOnly": ["color-contrast"]} if scheme == "dark" else {})
    found = Axe().run(shown, context={"exclude": [".chart-area svg"]}, options=rules).response["violations"]
    faults = {one["id"]: [node["html"][:200] for node in one["nodes"]][:3] for one in found}
    serious = {one["id"] for one in found if one["impact"] in ("serious", "critical")}
    assert not {name: faults[name] for name in serious}
    back, ink = shown.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('svg text')).fill]"
    )
    assert (brightness(back) < brightness(ink)) == (scheme == "dark")


def brightness(colour: str) -> float:
    return sum(float(part) for part in re.findall(r"[\d.]+", colour)[:3])


def test_a_telephone_scrolls_in_one_direction(browser_page: Page, study: Path) -> None:
    browser_page.set_viewport_size({"width": 390, "height": 844})
    browser_page.goto(address(study))
    draw(browser_page)
    browser_page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true })")
    assert browser_page.evaluate("document.documentElement.scrollWidth") == 390


def test_printing_shows_what_is_closed_on_the_screen(browser_page: Page, study: Path) -> None:
    browser_page.goto(address(study))
    runs = browser_page.locator("[aria-label='Learning rates, updates, intervals and macro-F1']")
    assert not is_painted(runs)
    browser_page.emulate_media(media="print")
    assert is_painted(runs)
    assert browser_page.locator(".bar").is_hidden()
    pdf = browser_page.pdf(format="A4")
    assert pdf.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 4


def is_painted(locator: Any) -> bool:
    return bool(locator.evaluate("(node) => node.checkVisibility({ contentVisibilityAuto: true })"))


@pytest.fixture
def without_scripts(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(java_script_enabled=False, offline=True)
    yield context
    context.close()


def test_without_scripts_tables_and_pictures_are_there(without_scripts: BrowserContext, study: Path) -> None:
    page = without_scripts.new_page()
    page.goto(address(study))
    assert page.locator(".filters").is_hidden()
    assert page.get_by_role("region", name="Validation and test accuracy, budget epochs-1").locator("td").count() > 8
    assert page.locator("[data-chart=accuracy] img").is_visible()
    assert page.locator("button:visible").count() == 0


def test_a_section_with_a_warning_is_open_and_named_at_the_top(browser_page: Page, study: Path) -> None:
    browser_page.goto(address(study))
    open_ones = browser_page.evaluate("[...document.querySelectorAll('details.section[open]')].map((one) => one.id)")
    assert {"results", "fair", "trust"} <= set(open_ones)
    assert "cost" not in open_ones
    assert browser_page.locator(".cautions a[href='#trust']").count() > 0
