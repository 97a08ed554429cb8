"""How large the report's page is, how soon it answers, and what it needs of memory: python -m benchmarks.page

Makes studies of 60, 600 and, where asked, 2,000 runs from random numbers, with all figures and charts, and opens their
pages in Debian's Chromium from disk, without a network. Needs requirements-tests.lock.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from playwright.sync_api import sync_playwright

from batchscope.report.figures import draw_figures
from batchscope.report.page import write_report
from batchscope.report.spec import ReportSpec
from batchscope.report.tables import write_tables

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/support"))
import fabricate  # noqa: E402

STUDIES: dict[int, dict[str, Any]] = {
    60: {"target_batch_sizes": [16, 64, 256], "seeds": [1, 2, 3, 4, 5]},
    600: {"target_batch_sizes": [16, 32, 64, 128, 256], "seeds": list(range(30))},
    2000: {"target_batch_sizes": [16, 32, 64, 128, 256], "seeds": list(range(100))},
}
"""Cells → config; two models and two LR policies."""
BUDGETS = {"megabytes": 12.0, "seconds": 2.0, "browser_megabytes": 400.0}


class Measured(NamedTuple):
    """What was measured of one page."""

    cells: int
    megabytes: float
    seconds: float
    """From the start of the navigation until the first chart is drawn and the filters answer."""
    browser_megabytes: float
    """Unique memory of the process that shows the page, with every section open and every chart drawn."""
    charts: int
    notes: list[str]
    """What the charts say of how they are drawn."""


def main(argv: list[str] | None = None) -> None:
    """Measure; exit status 1 where a page of 60 runs is over its budget."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    options.add_argument("--cells", type=int, choices=STUDIES, action="append", help="one of the studies")
    options.add_argument("--small-pictures", action="store_true", help="in place of the figures, which take minutes")
    arguments = options.parse_args(argv)
    over = []
    for cells in arguments.cells or (60, 600):
        with tempfile.TemporaryDirectory(prefix="batchscope-page-") as folder:
            page = made(Path(folder), cells, arguments.small_pictures)
            found = measured(page, cells)
        print(
            f"{cells} cells: {found.megabytes:.1f} MB; interactive in {found.seconds:.2f} s; "
            f"{found.browser_megabytes:.0f} MB of browser memory; {found.charts} charts"
        )
        for note in found.notes:
            print(f"    {note}")
        if cells == 60:
            over += [name for name, most in BUDGETS.items() if getattr(found, name) > most]
    if over:
        sys.exit(f"over budget: {', '.join(f'{name} (at most {BUDGETS[name]:g})' for name in over)}")


def made(folder: Path, cells: int, small_pictures: bool) -> Path:
    """The page of a fabricated study."""
    spec: ReportSpec = fabricate.spec(noise_scale="full", **STUDIES[cells])
    fabricate.study_folder(folder, spec, examples=2048, effect=0.02, test=600, tokens=48)
    write_tables(spec, folder)
    (fabricate.small_figures if small_pictures else _drawn)(folder, spec)
    started = time.perf_counter()
    write_report(spec, folder)
    print(f"{cells} cells: the page is written in {time.perf_counter() - started:.1f} s")
    return folder / "report/index.html"


def _drawn(folder: Path, spec: ReportSpec) -> None:
    draw_figures(spec, folder)


def measured(path: Path, cells: int) -> Measured:
    """Open the page and measure."""
    chromium = shutil.which("chromium")
    assert chromium, "no Chromium is installed: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True).new_page()
        started = time.perf_counter()
        page.goto(path.as_uri(), wait_until="commit")
        page.wait_for_selector("[data-chart][data-drawn]", state="attached")
        page.locator(".pick > summary").first.click()
        page.locator(".pick[open] input").first.wait_for()
        seconds = time.perf_counter() - started
        page.evaluate("document.querySelectorAll('details.section').forEach((one) => { one.open = true; })")
        names = page.evaluate("[...document.querySelectorAll('[data-chart]')].map((one) => one.dataset.chart)")
        for name in names:
            page.locator(f"[data-chart={name}]").scroll_into_view_if_needed()
            page.wait_for_selector(f"[data-chart={name}][data-drawn]", state="attached", timeout=120_000)
        notes = page.locator("[data-chart] > .note").all_inner_texts()
        memory = max(
            process.memory_full_info().uss
            for process in psutil.Process().children(recursive=True)
            if "--type=renderer" in " ".join(process.cmdline())
        )
        browser.close()
    size = path.stat().st_size / 1e6
    return Measured(cells, size, seconds, memory / 1e6, len(names), [note for note in notes if "study has" in note])


if __name__ == "__main__":
    main()
