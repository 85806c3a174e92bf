"""axe-core finds nothing serious in the report, the live page and the console, light and dark."""

from __future__ import annotations

from pathlib import Path

import axe_playwright_python
import pytest

from analysis.report.page import write_report
from tests.browser.serving import Server

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")


def serious(page) -> list[str]:
    """What axe-core takes for serious or critical on a page as it is now."""
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']} ({one['impact']}): {node['html'][:160]} {[a['message'] for a in node['any'][:1]]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]


@pytest.fixture(scope="module")
def server(tmp_path_factory, stores):
    """A server of a small study."""
    server = Server(stores.write_trials(tmp_path_factory.mktemp("live"), stores.demo_trials(seeds=1)))
    yield server
    server.close()


def test_the_report_with_everything_open(server, stores, visit):
    page = visit(write_report(server.store, out=server.store / "r.html"), "#theme=light")
    page.wait_for_selector("html[data-drawn=true]")
    page.click("#open-filters")
    page.locator("details.data summary").first.click()
    assert page.locator("details.data table tbody tr").count() > 5
    assert serious(page) == []
    page.click("#theme")
    assert serious(page) == []
    page.locator("#table tbody td button").first.click()
    assert serious(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_live_page_and_the_console(server, chromium, scheme):
    page = chromium.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    try:
        page.goto(server.url)
        page.wait_for_selector("html[data-ready=true]")
        assert serious(page) == []
        page.goto(server.console)
        page.click("#ask button[type=submit]")
        page.wait_for_selector("#answer tbody tr")
        page.click("#draw")
        page.wait_for_selector("#chart-plot .plot-container")
        page.locator("details summary").first.click()
        page.focus("#sql")
        page.keyboard.type(" acc")
        page.wait_for_selector("#words li")
        assert serious(page) == []
    finally:
        page.close()
