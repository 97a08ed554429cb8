"""The attention viewer in a browser: it says the weights of the runs' files, and its pickers and keys choose."""

import re
from pathlib import Path

import numpy as np
import pytest
from once import made_once
from playwright.sync_api import Page, expect
from test_browser import address, choose, make

VIEWER = "#attention-viewer"
SLIDING, HEAD = 1, 2


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "browser", make)


@pytest.fixture
def viewer(browser_page: Page, study: Path) -> Page:
    browser_page.goto(address(study) + "#attention")
    browser_page.evaluate("document.getElementById('attention').open = true")
    expect(browser_page.locator(f"{VIEWER} .pair")).not_to_be_empty()
    pick(browser_page, "layer", str(SLIDING))
    pick(browser_page, "head", str(HEAD))
    return browser_page


def pick(page: Page, name: str, value: str) -> None:
    page.select_option(f"{VIEWER} fieldset:not([data-side]) select[name={name}]", index=int(value))


def weights(study: Path, run: str, review: str) -> np.ndarray:
    with np.load(study / "runs" / run / "attention/attention.npz") as arrays:
        unit = arrays[f"{review}.largest"][SLIDING, HEAD - 1] / 255
        return arrays[f"{review}.levels"][SLIDING, HEAD - 1] * unit


def said(page: Page) -> list[float]:
    """The numbers of A, B and B − A for the chosen pair."""
    text = page.locator(f"{VIEWER} .pair").inner_text().replace("−", "-")
    return [float(number) for number in re.findall(r"(?:A|B) (-?\d\.\d+)", text)]


def test_keys_move_the_pair_and_its_weights_are_those_of_the_files(viewer: Page, study: Path) -> None:
    data = viewer.evaluate("JSON.parse(document.getElementById('data-attention').textContent)")
    first = data["runs"][0]
    same = [run for run in data["runs"] if all(run[key] == first[key] for key in ("model", "policy", "budget", "seed"))]
    review = data["reviews"][0]["name"]
    one, two = (weights(study, run["run"], review) for run in (first, same[-1]))
    assert data["models"][first["model"]]["windows"][SLIDING] == 4 and first["batch"] != same[-1]["batch"]
    viewer.locator(f"{VIEWER} figure[data-map=a] canvas").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowRight"):
        viewer.keyboard.press(key)
    expected = pytest.approx([one[1, 1], two[1, 1], two[1, 1] - one[1, 1]], abs=2e-3)
    for _ in range(50):
        if said(viewer) == expected:
            break
        viewer.wait_for_timeout(100)
    assert said(viewer) == expected, "what is drawn last, when the maps are unpacked, is what is said"
    for _ in range(6):
        viewer.keyboard.press("ArrowRight")
    expect(viewer.locator(f"{VIEWER} .pair")).to_contain_text("A not allowed · B not allowed")


def test_pickers_words_filter_and_overview_choose(viewer: Page) -> None:
    tokens = viewer.locator(f"{VIEWER} .rollout [data-side=a] .text span").count()
    viewer.check(f"{VIEWER} input[name=words]")
    expect(viewer.locator(f"{VIEWER} .rollout [data-side=a] .text span")).to_have_count(tokens - 1)
    choose(viewer, "batch", "64")
    batches = viewer.locator(f"{VIEWER} fieldset[data-side=a] select[name=batch] option")
    expect(batches).to_have_text(["64"])
    viewer.locator(f"{VIEWER} .overview canvas").focus()
    for key in ("ArrowDown", "ArrowLeft"):
        viewer.keyboard.press(key)
    expect(viewer.locator(f"{VIEWER} select[name=layer]")).to_have_value(str(SLIDING + 1))
    expect(viewer.locator(f"{VIEWER} select[name=head]")).to_have_value(str(HEAD - 1))
    viewer.select_option(f"{VIEWER} fieldset[data-side=b] select[name=model]", "bert")
    expect(viewer.locator(f"{VIEWER} .gap")).to_contain_text("different models")
    expect(viewer.locator(f"{VIEWER} figure[data-map=change]")).to_be_hidden()
