"""What a reader finds out on the page: any two columns, equal memory, the console; and the page on paper."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from tests.browser.serving import Server

BROKEN_WORDS = """() => {
    const found = [], range = new Range();
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const text = walk.currentNode, around = text.parentElement;
        if (around.closest('script, style, svg, code, h1') || !around.offsetParent) continue;
        for (const word of text.data.matchAll(/[A-Za-z]{3,}/g)) {
            range.setStart(text, word.index);
            range.setEnd(text, word.index + word[0].length);
            const lines = new Set([...range.getClientRects()].map(r => Math.round(r.top)));
            if (lines.size > 1) found.push(word[0]);
        }
    }
    return found }"""
"""Words that stand on two lines."""

CHOSEN = "#e.x=depth&e.y=wall_s&e.color=width&e.facet=strategy"


def test_any_columns_are_drawn_and_stand_in_the_address(report, visit):
    page = visit(report, CHOSEN)
    page.locator("#explore").scroll_into_view_if_needed()
    page.wait_for_selector("#explore-plot .plot-container")
    drawn = """() => { const {data, layout} = document.getElementById('explore-plot');
        return {n: data.reduce((n, t) => n + t.x.length, 0),
            axes: [...new Set(data.map(t => t.xaxis))].length,
            names: [...new Set(data.map(t => t.name))], y: layout.yaxis.title.text} }"""
    found = page.evaluate(drawn)
    assert found["n"] == 92 and found["axes"] == 2 and found["names"] == ["0.5", "1"]
    assert "time of the trial" in found["y"]
    page.select_option("#explore-x", "parameters")
    page.select_option("#explore-facet", "")
    assert "e.x=parameters" in page.url and "e.y=wall_s" in page.url
    found = page.evaluate(drawn)
    assert found["axes"] == 1 and found["n"] == 92
    page.click("#open-filters")
    page.click('.chip[data-key="strategy"][data-value="reverse"]')
    assert page.evaluate(drawn)["n"] == 37
    parameters = page.evaluate("document.getElementById('explore-plot').data.flatMap(t => t.x)")
    assert min(parameters) == 12_000 * 14 * 0.25  # what the rows hold


def test_the_card_is_in_the_address(report, visit):
    page = visit(report)
    button = page.locator("#table tbody td button").first
    trial = button.inner_text()
    button.click()
    assert f"card={trial}" in page.url
    shared = visit(report, "#" + page.url.partition("#")[2])
    assert f"Trial {trial}" in shared.inner_text("#card[open]")
    shared.keyboard.press("Escape")
    shared.wait_for_function("!location.hash.includes('card=')")


def test_the_best_of_each_kind_at_equal_memory(report, visit):
    page = visit(report)
    lines = page.locator("#equal-memory tbody tr")
    assert [lines.nth(i).locator("th").inner_text() for i in range(3)] == [
        "stored",
        "recomputed or moved",
        "reversed",
    ]
    assert "95 % interval" in lines.nth(2).inner_text() and "none fits" in lines.nth(1).inner_text()
    last = page.inner_text("#equal-memory output")
    page.focus("#equal-memory input")
    page.keyboard.press("Home")
    assert page.inner_text("#equal-memory output") != last
    assert "memory=" in page.url
    shared = visit(report, "#" + page.url.partition("#")[2])
    assert shared.inner_text("#equal-memory tbody") == page.inner_text("#equal-memory tbody")
    budget = page.evaluate("Number(new URLSearchParams(location.hash.slice(1)).get('memory'))")
    peaks = [
        float(t.split()[0]) * {"MB": 1e6, "kB": 1e3}[t.split()[1]]
        for t in page.eval_on_selector_all(
            "#equal-memory tbody td:nth-child(4)", "all => all.map(e => e.textContent).filter(Boolean)"
        )
    ]
    assert peaks and max(peaks) <= 1.005 * budget


def test_the_tools_of_a_figure_are_one_stop_of_the_tab_key(report, visit):
    page = visit(report)
    page.locator("#figure-tradeoff").scroll_into_view_if_needed()
    page.wait_for_selector("#figure-tradeoff [role=toolbar]")
    stops = "document.querySelectorAll('#figure-tradeoff .modebar-btn[tabindex=\"0\"]').length"
    page.wait_for_function(f"{stops} === 1")
    page.focus("#figure-tradeoff .modebar-btn")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.title") == "Zoom"
    page.click("#theme")  # the figure is drawn anew
    page.wait_for_function(f"{stops} === 1")


def test_a_picture_of_the_whole_page_has_every_figure(report, visit):
    page = visit(report)
    page.wait_for_selector("html[data-drawn=true]")
    assert page.evaluate(
        "[...document.querySelectorAll('[data-figure]')].every(e => e.querySelector('.main-svg'))"
    )
    assert page.locator("#explore-plot .main-svg").count() > 0


def test_two_figures_stand_on_a_page_of_paper(report, visit):
    page = visit(report, width=720)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    heights = page.eval_on_selector_all(
        ".panels .panel:has(.plot)", "all => all.map(e => e.getBoundingClientRect().height)"
    )
    a4 = (297 - 24) / 25.4 * 96
    assert sum(2 * (h + 8 / 25.4 * 96) <= a4 for h in heights) >= len(heights) - 1
    broken = page.evaluate(BROKEN_WORDS)
    assert broken == []


def test_the_console_completes_remembers_saves_and_draws(chromium, tmp_path, stores):
    server = Server(stores.write_trials(tmp_path, [stores.trial_row(seed=i) for i in range(3)]))
    page = chromium.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    try:
        page.goto(server.console)
        page.fill("#sql", "")
        page.type("#sql", "select seed, memory_pe")
        page.wait_for_selector("#words li[aria-selected=true]")
        page.keyboard.press("Tab")
        assert page.input_value("#sql") == "select seed, memory_peak_bytes"
        page.type("#sql", " from tri")
        page.keyboard.press("Enter")
        assert page.input_value("#sql") == "select seed, memory_peak_bytes from trials"
        page.type("#sql", " order by 1")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#answer tbody tr")
        with page.expect_download() as waiting:
            page.click("#csv")
        rows = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text())))
        assert [row["seed"] for row in rows] == ["0", "1", "2"]
        page.click("#draw")
        page.wait_for_selector("#chart-plot .plot-container")
        assert page.evaluate("document.getElementById('chart-plot').data[0].x") == [0, 1, 2]
        page.reload()
        page.focus("#sql")
        page.keyboard.press("Alt+ArrowUp")
        assert page.input_value("#sql") == "select seed, memory_peak_bytes from trials order by 1"
        assert problems == []
    finally:
        page.close()
        server.close()
