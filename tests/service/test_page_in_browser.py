"""The page of batches in a real browser: what a person sees who gives the key, and who gives a wrong one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests import needs
from tests.browser import CHROMIUM
from tests.service.server import Server, batch, ended, lines, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=needs.CHROMIUM)
pytest.importorskip("playwright")
pytest.importorskip("starlette", reason="SGLang's web framework is not installed")
# A name that is no HTML.
NAME = "<b>labels</b> & more"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("page") / "store", "--engine", "replay", "--api-key", "key") as found:
        client = found.client("key")
        asked = [
            batch(client, lines(["a"]) + lines(["b"], temperature=-1), metadata={"name": NAME}),
            batch(client, b"nope\n"),
        ]
        for each in asked:
            ended(client, each)
        yield found


def opened(
    browser: Browser, server: Server, key: str, width: int = 1280, scheme: str = "light"
) -> tuple[Page, list[str]]:
    said: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 720}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.on("pageerror", lambda error: said.append(f"{error}"))
    page.goto(server.address)
    page.fill("#key", key)
    page.click("button")
    return page, said


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_batches_are_told_as_they_are(browser: Browser, server: Server, width: int, scheme: str) -> None:
    page, said = opened(browser, server, "key", width, scheme)
    page.wait_for_selector("#rows tr")
    assert page.inner_text("#state") == "0 going on, 2 ended"
    bad, good = (row.inner_text() for row in page.query_selector_all("#rows tr"))
    assert "failed" in bad and "the line is no JSON" in bad
    assert "completed" in good and "2 of 2" in good and "1 failed" in good and NAME in good
    assert not page.is_visible("#form")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert said == []


def test_a_batch_links_to_its_report(browser: Browser, server: Server) -> None:
    page, said = opened(browser, server, "key")
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.wait_for_selector("#rows tr")
    # One that failed before it began has none.
    assert len(page.query_selector_all("#rows .link")) == 1
    page.click("#rows .link")
    page.wait_for_url("**/reports/*")
    page.wait_for_selector("h1")
    assert "batch_" in page.title() + page.inner_text("body")
    assert said == []
    page.reload()
    assert "good for one look" in page.inner_text("body")


def test_a_wrong_key_is_told_so(browser: Browser, server: Server) -> None:
    page, _ = opened(browser, server, "wrong")
    page.wait_for_function("document.getElementById('state').textContent.includes('key is missing or wrong')")
    assert page.is_visible("#form")
    assert not page.is_visible("#table")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_stands_in_the_way_of_anyone(browser: Browser, server: Server, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

    page, _ = opened(browser, server, "key", scheme=scheme)
    page.wait_for_selector("#rows tr")
    found = Axe().run(page).response["violations"]
    assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
