"""The page of `revstudy serve` follows a sweep: rows are written while it is open."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.store.leases import Hold, acquire
from tests.browser.serving import Server

ROWS = "#table tbody tr"
PLANNED = 16
READ = """() => { window.mine ||= "kept";
    return {count: document.getElementById("count").textContent, mine: window.mine,
        loads: performance.getEntriesByType("navigation")[0].type + performance.timeOrigin} }"""


@pytest.fixture
def sweep(tmp_path: Path, stores) -> Iterator[tuple[Path, list[dict]]]:
    """A store in which four of sixteen trials are done and one runs, and the rows that are to come."""
    store = tmp_path / "s"
    rows = [
        stores.trial_row(study="sweep", strategy=s, depth=d, seed=i)
        for i in range(4)
        for s in ("store", "reverse")
        for d in (14, 26)
    ]
    stores.write_trials(store, rows[:4])
    (store / "study=sweep/study.json").write_text(json.dumps({"name": "sweep", "planned": PLANNED}))
    hold = acquire(store, "f" * 16, study="sweep", epochs=10, what="revnet38 d14 w1 reverse fp32 seed 9")
    assert isinstance(hold, Hold)
    for epoch in range(1, 5):
        hold.progress(epoch, {"step": 10 * epoch, "loss_train": 2.0 / epoch, "memory_peak_bytes": 5_000_000})
    hold.is_ours()  # writes it
    yield store, rows[4:]
    hold.release()


@pytest.fixture
def live(chromium, sweep):
    """A page that follows the sweep, and what went wrong on it."""
    server = Server(sweep[0])
    page = chromium.new_page(viewport={"width": 1240, "height": 900}, reduced_motion="reduce")
    page.set_default_timeout(30_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    try:
        page.goto(server.url)
        page.wait_for_selector("html[data-ready=true]")
        yield page
    finally:
        page.close()
        server.close()
    assert problems == []


def test_rows_appear_in_place_and_nothing_of_the_reader_is_taken(live, sweep, stores):
    store, coming = sweep
    before = live.evaluate(READ)
    assert before["count"] == "4 trials"
    assert "4 of 16 done · 1 running · 0 failed · 0 retried" in live.inner_text(".progress")
    assert "revnet38 d14 w1 reverse fp32 seed 9" in live.inner_text("#running")
    assert "5.00 MB" in live.inner_text("#running")
    assert live.get_attribute("#running svg", "aria-label").startswith("training loss from 2 at step 10")
    assert "8 on" in live.inner_text("#wait") and live.locator(".answer").count() == 0
    live.click("#open-filters")
    live.locator("#figure-tradeoff").evaluate("e => e.scrollIntoView({block: 'center'})")
    live.wait_for_selector("#figure-tradeoff .plot-container")
    live.evaluate("getSelection().selectAllChildren(document.querySelector('#tradeoff .lead'))")
    selected = live.evaluate("String(getSelection())")
    live.focus('.chip[data-key="strategy"][data-value="reverse"]')
    top = "() => document.getElementById('figure-tradeoff').getBoundingClientRect().top"
    at = live.evaluate(top)
    delays: list[float] = []
    for row in coming[:3]:
        wanted = len(delays) + 5
        stores.write_trials(store, [row])
        written = time.monotonic()
        live.wait_for_function(
            "n => document.getElementById('count').textContent === n + ' trials'", arg=wanted
        )
        assert live.locator(f"{ROWS}:has-text('{row['trial_id']}')").count() == 1
        delays.append(time.monotonic() - written)
    assert sorted(delays)[1] < 2.0, delays
    stores.write_trials(store, coming[3:])
    live.wait_for_function("document.getElementById('count').textContent === '16 trials'")
    live.wait_for_selector(".answer")
    live.wait_for_function(  # a point of four seeds
        "document.getElementById('figure-tradeoff').data.some(t => t.customdata.some(c => c.length > 3))"
    )
    assert "16 of 16 done" in live.inner_text(".progress")
    after = live.evaluate(READ)
    assert after["mine"] == "kept" and after["loads"] == before["loads"]
    assert live.locator("#filters").is_visible()
    assert live.evaluate("document.activeElement.dataset.value") == "reverse"
    assert live.evaluate("String(getSelection())") == selected
    assert abs(live.evaluate(top) - at) < 3
    assert live.locator("#wait").count() == 0


def test_filters_and_an_open_card_stay_and_attempts_and_pauses_are_followed(live, sweep, stores):
    store, coming = sweep
    live.click("#open-filters")
    live.click('.chip[data-key="strategy"][data-value="reverse"]')
    first = live.locator(f"{ROWS} td button").first
    trial = first.inner_text()
    first.click()
    assert f"card={trial}" in live.url
    stores.write_trials(store, coming[:4])
    live.wait_for_function("document.getElementById('count').textContent === '4 of 8 trials'")
    assert live.locator("#card").is_visible() and trial in live.inner_text("#card-title")
    live.keyboard.press("Escape")
    live.wait_for_function("!location.hash.includes('card=')")
    assert "f.strategy=reverse" in live.url
    assert live.locator('.chip[aria-pressed="true"]').count() == 1
    ids = live.eval_on_selector_all(f"{ROWS} td:first-child", "all => all.map(e => e.textContent)")
    assert len(ids) == len(set(ids)) == 4
    assert live.locator('.chip[data-key="strategy"][data-value="store"] small').inner_text() == "4"
    # a second attempt takes the place of the first
    live.click("#clear")
    failed = {**coming[4], "outcome": "failed", "error_class": "X", "accuracy_val": None}
    stores.write_trials(store, [failed])
    line = f"{ROWS}:has-text('{failed['trial_id']}')"
    live.wait_for_function("document.getElementById('count').textContent === '9 trials'")
    assert "failed" in live.inner_text(line)
    live.wait_for_function("document.querySelector('.progress').textContent.includes('1 failed')")
    stores.write_trials(store, [{**coming[4], "attempt": 1}])
    live.wait_for_function("document.querySelector('.progress').textContent.includes('1 retried')")
    assert live.locator(line).count() == 1 and "failed" not in live.inner_text(line)
    # a page that was away catches up
    live.context.set_offline(True)
    stores.write_trials(store, coming[5:7])
    live.context.set_offline(False)
    live.wait_for_function("document.getElementById('count').textContent === '11 trials'")
