"""A real Chromium that may reach nothing but the report's own file."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from analysis.report.page import write_report
from tests.browser import chromium as chromium_browser

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
ATTACK = "</script><script>window.attacked=1</script><img src=x onerror='window.attacked=2'>"


def _stores():
    """The module that writes test stores."""
    path = Path(__file__).parents[1] / "analysis" / "conftest.py"
    spec = importlib.util.spec_from_file_location("store_fixtures", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def stores():
    """The functions that build and write rows."""
    return _stores()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a grid of twins with two failures."""
    stores = _stores()
    store = stores.write_trials(tmp_path_factory.mktemp("store"), stores.demo_trials())
    return write_report(store)


@pytest.fixture(scope="session")
def odd_reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of an empty store, of one trial, of failures alone, and of text that attacks the page."""
    stores = _stores()
    new, folder = stores.trial_row, tmp_path_factory.mktemp("odd")
    nan, inf = float("nan"), float("inf")
    trials = {
        "empty": [],
        "one": [new()],
        "failed": [
            {**new(seed=i), "outcome": "failed", "accuracy_val": nan, "loss_train": inf} for i in range(3)
        ],
        "attack": [
            {
                **new(seed=i, study=ATTACK, model=ATTACK, data=ATTACK, strategy=ATTACK, outcome=outcome),
                "error_message": ATTACK,
                "error_class": ATTACK,
                "config_json": ATTACK,
                "device": ATTACK,
            }
            for i, outcome in enumerate(("ok", "ok", "failed"))
        ],
    }
    paths = {}
    for name, rows in trials.items():
        (folder / name).mkdir()
        paths[name] = write_report(stores.write_trials(folder / name, rows, folder="s"))
    return paths


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser, which may reach nothing outside."""
    executable = chromium_browser.required()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=_ARGUMENTS)
        yield browser
        browser.close()


class Visitor:
    """Opens reports and notes every console error and every request for anything but the report's file."""

    def __init__(self, browser: Browser):
        self._browser = browser
        self.pages: list[Page] = []
        self.problems: list[str] = []

    def __call__(self, path: Path, fragment: str = "", *, scheme: str = "light", width: int = 1280) -> Page:
        page = self._browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        page.set_default_timeout(30_000)
        self.pages.append(page)
        page.on("console", lambda m: self._note("console", m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self._note("error", str(error)))
        own = path.as_uri()

        def only_the_file(route):
            if route.request.url.partition("#")[0] == own:
                route.continue_()
            else:
                self._note("request", route.request.url)
                route.abort()

        page.route("**/*", only_the_file)
        page.goto(own + fragment)
        page.wait_for_selector("html[data-ready=true]")
        return page

    def _note(self, kind: str, text: str) -> None:
        self.problems.append(f"{kind}: {text}")


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visitor]:
    """Opens reports in pages of their own."""
    visitor = Visitor(chromium)
    yield visitor
    for page in visitor.pages:
        page.close()
    assert visitor.problems == []


@pytest.fixture(scope="session")
def _shared(chromium: Browser, report: Path) -> Iterator[Visitor]:
    visitor = Visitor(chromium)
    visitor(report)
    yield visitor


@pytest.fixture
def page(_shared: Visitor) -> Iterator[Page]:
    """The demo's report in a page that tests share, brought back to its first state by its address."""
    (page,) = _shared.pages
    page.evaluate(
        """() => new Promise(done => {
            document.getElementById('card').close();
            document.getElementById('filters').hidden = true;
            document.getElementById('open-filters').setAttribute('aria-expanded', 'false');
            document.activeElement.blur();
            scrollTo(0, 0);
            location.hash = 'reset' + Math.random();
            addEventListener('hashchange', () => setTimeout(done), {once: true});
        })"""
    )
    assert page.inner_text("#count") == "92 trials"
    yield page
    problems, _shared.problems = _shared.problems, []
    assert problems == []
