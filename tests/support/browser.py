"""Debian's Chromium for the tests of the page: from disk, with the network off, one browser per process."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The browser. Skips where there is none; with ``BATCHSCOPE_REQUIRE_BROWSER=1`` that is a failure."""
    if CHROMIUM is None:
        if os.environ.get("BATCHSCOPE_REQUIRE_BROWSER") == "1":
            pytest.fail("no Chromium is installed: apt-get install chromium")
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def browser_page(browser: Browser) -> Iterator[Page]:
    """A fresh page of 1280 × 900 without a network. A test fails where the page logs an error or throws."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: faults.append(request.url) if request.url.startswith("http") else None)
    yield page
    context.close()
    assert not faults
