"""The page in a real browser: it draws, asks nobody for anything, can be walked through, and is readable for all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blendrun.report.page.page import make_page
from blendrun.report.page.subject import plan_subject
from blendrun.store.guard import Target
from tests import needs
from tests.browser import CHROMIUM
from tests.report.page_of_runs import small_plan, subject

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=needs.CHROMIUM)
pytest.importorskip("playwright")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    made = folder / "report.html"
    make_page([subject(folder, "one"), subject(folder, "two")], Target(made, "-o"))
    return made


class Opened:
    """A page with what it said and asked for."""

    def __init__(self, browser: Browser, path: Path, width: int, scheme: str) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        self.page: Page = context.new_page()
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_function(
            "[...document.querySelectorAll('.chart')].every(each => each.querySelector('svg'))", timeout=20_000
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_draws_without_a_word_and_asks_nobody(browser: Browser, path: Path, width: int, scheme: str) -> None:
    opened = Opened(browser, path, width, scheme)
    assert opened.said == []
    assert opened.asked == [path.as_uri()]
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    for chart in opened.page.query_selector_all(".chart svg"):
        box = chart.bounding_box()
        assert box is not None and box["width"] <= width and box["height"] > 50


def test_what_failed_lies_within_the_view_of_a_telephone(browser: Browser, path: Path) -> None:
    page = Opened(browser, path, 400, "light").page
    cells = [cell.bounding_box() for cell in page.query_selector_all(".trouble td")]
    assert cells and all(box is not None and box["x"] + box["width"] <= 400 for box in cells)
    assert "Scroll sideways" not in page.locator(".trouble").all_inner_texts()[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_stands_in_the_way_of_anyone(browser: Browser, path: Path, scheme: str, tmp_path: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    if scheme == "light":
        # One run alone, which has figures where two have a table.
        path = tmp_path / "one.html"
        make_page([subject(tmp_path, "one")], Target(path, "-o"))
    opened = Opened(browser, path, 1280, scheme)
    found = axe.Axe().run(opened.page).response["violations"]
    serious = [
        (each["id"], [node["target"] for node in each["nodes"]][:3])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_the_tree_is_walked_by_mouse_keyboard_and_search(browser: Browser, path: Path) -> None:
    page = Opened(browser, path, 1280, "light").page
    chart, controls = page.locator("#icicle-0"), page.locator("[data-icicle=icicle-0]")

    def last() -> float:
        """The number at the right end of the axis, or near it."""
        ticks = chart.locator(".role-axis-label text").all_text_contents()
        return float(ticks[-1].replace(",", ""))

    whole = last()
    controls.get_by_title("Zoom in").focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    assert last() < whole
    controls.get_by_text("Whole tree").click()
    page.wait_for_timeout(300)
    assert last() == whole
    search = controls.get_by_label("Search")
    search.fill("request 13")
    page.wait_for_timeout(300)
    assert "1 prefix" in controls.locator(".found").inner_text()
    faint = chart.locator(".mark-rect path[opacity='0.18']").count()
    assert faint > 0
    search.press("Enter")
    page.wait_for_timeout(300)
    assert last() < whole
    search.press("Escape")
    page.wait_for_timeout(300)
    assert last() == whole
    chart.locator(".mark-rect path").nth(3).click()
    page.wait_for_timeout(300)
    assert last() < whole
    blocks = chart.locator(".mark-rect path").count()
    controls.get_by_label("Width").select_option("saved")
    page.wait_for_timeout(300)
    # What nobody shares saves nothing.
    assert 0 < chart.locator(".mark-rect path").count() < blocks
    assert last() != whole


def test_all_that_acts_can_be_reached_by_keyboard(browser: Browser, path: Path) -> None:
    page = Opened(browser, path, 1280, "light").page
    reached = set()
    for _ in range(160):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.outerHTML.slice(0, 120)"))
    acting = page.evaluate(
        "[...document.querySelectorAll('a, button, input, select, summary')].map(each => each.outerHTML.slice(0, 120))"
    )
    assert set(acting) <= reached


def test_it_prints_in_ink_on_paper(browser: Browser, path: Path) -> None:
    page = Opened(browser, path, 1280, "dark").page
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert len(page.pdf()) > 20_000


def test_a_plan_alone_draws_too(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "plan.html"
    make_page([plan_subject(small_plan(), "jobs.jsonl")], Target(path, "-o"))
    opened = Opened(browser, path, 1280, "light")
    assert opened.said == []
    assert opened.page.locator("#requests").count() == 0
