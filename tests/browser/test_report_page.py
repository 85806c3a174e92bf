"""The report as a reader meets it."""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.figures import FIGURES
from analysis.report.page import write_report

ROWS = "#table tbody tr"


def show(page, name: str):
    """Scrolls to a figure and waits until it is drawn, as the filters are now."""
    holder = page.locator(f"#figure-{name}")
    holder.evaluate("e => e.scrollIntoView({block: 'center'})")
    page.wait_for_selector(f"#figure-{name}:not([data-stale]) .plot-container")
    return holder


def points(page, name: str) -> int:
    """How many points a figure shows; gaps, legend entries and fitted lines left out."""
    show(page, name)
    return page.evaluate(
        """name => document.getElementById('figure-' + name).data
            .filter(t => !['legend', 'front', 'fit', 'band'].includes(t.meta.role))
            .reduce((n, t) => n + (t.x || t.y).filter(v => v !== null).length, 0)""",
        name,
    )


def press_chip(page, key: str, value: str) -> None:
    if page.locator("#filters").is_hidden():
        page.click("#open-filters")
    page.click(f'.chip[data-key="{key}"][data-value="{value}"]')


def test_every_figure_is_drawn_without_an_error(page):
    for name in page.eval_on_selector_all("[data-figure]", "all => all.map(e => e.dataset.figure)"):
        assert points(page, name) > 0
    assert page.inner_text("#count") == "92 trials"
    assert page.locator(ROWS).count() == 92
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_no_button_of_a_figure_sends_it_anywhere(page):
    show(page, "tradeoff")
    titles = page.eval_on_selector_all(
        "#figure-tradeoff .modebar-btn", "all => all.map(e => e.dataset.title)"
    )
    assert titles == ["Download plot", "Zoom", "Pan", "Box Select", "Lasso Select", "Reset axes"]
    with page.expect_download() as waiting:
        page.locator("#figure-tradeoff .modebar-btn").first.click()
    assert "<svg" in Path(waiting.value.path()).read_text()[:2000]


def test_a_filter_narrows_the_figures_and_the_table(page):
    assert points(page, "tradeoff") == 30
    assert points(page, "memory_depth") == 30
    assert points(page, "overhead") == 36
    press_chip(page, "strategy", "reverse")
    assert page.inner_text("#count") == "37 of 92 trials"
    assert page.locator(ROWS).count() == 37
    assert points(page, "tradeoff") == 12
    assert points(page, "memory_depth") == 12
    assert points(page, "overhead") == 36  # a pair stays with the trial that reverses
    press_chip(page, "precision", "bf16")
    assert page.locator(ROWS).count() == 18
    assert points(page, "tradeoff") == 6
    assert points(page, "overhead") == 18
    page.click("#clear")
    assert page.locator(ROWS).count() == 92
    assert points(page, "tradeoff") == 30


def test_a_mean_is_recomputed_over_what_is_left_and_loses_its_interval(page):
    show(page, "tradeoff")
    read = """() => { const data = document.getElementById('figure-tradeoff').data;
        const t = data.find(t => t.name === 'reverse · revnet' && t.x.length > 1);
        return {y: t.y[0], up: t.error_y.array[0], rows: t.customdata[0]} }"""
    before = page.evaluate(read)
    assert before["up"] > 0
    assert len(before["rows"]) == 3
    press_chip(page, "seed", "1")
    after = page.evaluate(read)
    assert len(after["rows"]) == 1
    assert after["up"] is None
    cell = page.locator(f'{ROWS}[data-row="{after["rows"][0]}"] td').nth(9)
    assert float(cell.inner_text()) == pytest.approx(after["y"], abs=0.006)


def test_fits_hide_once_a_trial_behind_them_is_filtered_out(page):
    show(page, "error_depth")
    fits = """() => document.getElementById('figure-error_depth').data.filter(t => t.meta.role === 'fit')
        .reduce((n, t) => n + t.x.filter(v => v !== null).length, 0)"""
    assert page.evaluate(fits) > 0
    press_chip(page, "seed", "0")
    assert page.evaluate(fits) == 0
    press_chip(page, "seed", "0")
    press_chip(page, "precision", "fp32")
    assert page.evaluate(fits) > 0


def test_the_front_is_found_anew_among_what_is_left(page):
    show(page, "tradeoff")
    press_chip(page, "strategy", "store")
    front, shown = page.evaluate(
        """() => { const data = document.getElementById('figure-tradeoff').data;
            const front = data.find(t => t.meta.role === 'front');
            const all = data.filter(t => t.meta.front).flatMap(t => t.x.map((x, i) => [x, t.y[i]]));
            return [front.x.map((x, i) => [x, front.y[i]]).filter(p => p[0] !== null), all] }"""
    )
    expected = [p for p in shown if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in shown)]
    assert sorted(front) == sorted(expected)


def test_brushing_one_figure_filters_the_others_and_the_table(report, visit):
    page = visit(report)
    page.wait_for_selector("html[data-drawn=true]")
    show(page, "tradeoff")
    box = page.locator("#figure-tradeoff .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + box["height"] - 5, steps=4)
    page.mouse.up()
    page.wait_for_function("document.querySelector('#count').textContent.includes(' of ')")
    selected = page.locator(ROWS).count()
    assert 0 < selected < 90
    assert selected % 3 == 0  # whole configurations of three seeds
    assert points(page, "tradeoff") == 30  # the brushed figure keeps its points, muted
    assert points(page, "memory_depth") == selected / 3
    assert "sel=" in page.url
    page.reload()
    page.wait_for_selector("html[data-ready=true]")
    assert page.locator(ROWS).count() == selected
    page.click("#clear")
    assert page.locator(ROWS).count() == 92


def brush(page, name: str, *, right: float, bottom: float = 0.99) -> None:
    """Drags a box from the upper left corner of a figure."""
    show(page, name)
    box = page.locator(f"#figure-{name} .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * right, box["y"] + box["height"] * bottom, steps=4)
    page.mouse.up()


def test_the_box_of_a_brush_goes_with_its_selection(page):
    boxes = "name => document.querySelectorAll('#figure-' + name + ' .selectionlayer path').length"
    muted = """() => document.getElementById('figure-tradeoff').data.some(t => t.selectedpoints)"""
    brush(page, "tradeoff", right=0.45)
    page.wait_for_function("document.querySelector('#count').textContent.includes(' of ')")
    first = page.inner_text("#count")
    assert page.evaluate(boxes, "tradeoff") > 0
    brush(page, "error_tradeoff", right=0.6)
    page.wait_for_function("text => document.querySelector('#count').textContent !== text", arg=first)
    assert page.evaluate(boxes, "tradeoff") == 0
    assert page.evaluate(boxes, "error_tradeoff") > 0
    page.click("#clear")
    assert page.inner_text("#count") == "92 trials"
    page.wait_for_function(f"() => ({boxes})('error_tradeoff') === 0")
    assert page.evaluate(boxes, "tradeoff") == 0
    assert page.evaluate(muted) is False


def test_the_front_of_error_and_memory_runs_downwards(page):
    show(page, "error_tradeoff")
    press_chip(page, "strategy", "reverse")
    front, shown = page.evaluate(
        """() => { const data = document.getElementById('figure-error_tradeoff').data;
            const front = data.find(t => t.meta.role === 'front');
            const all = data.filter(t => t.meta.front).flatMap(t => t.x.map((x, i) => [x, t.y[i]]));
            return [front.x.map((x, i) => [x, front.y[i]]).filter(p => p[0] !== null), all] }"""
    )
    best = {tuple(p) for p in shown if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in shown)}
    assert {tuple(p) for p in front} == best
    assert len(best) > 1


def test_the_legend_filters_everywhere(page):
    show(page, "error_depth")
    entry = page.locator("#figure-error_depth .legendtoggle").first
    entry.click()
    page.wait_for_function("document.querySelector('#count').textContent.includes(' of ')")
    assert "f.precision=bf16" in page.url
    assert page.locator('.chip[data-key="precision"][aria-pressed="true"]').count() == 1


def test_the_state_is_in_the_address_and_survives_reload(report, visit):
    page = visit(report)
    press_chip(page, "depth", "26")
    press_chip(page, "outcome", "ok")
    page.fill("#search", "resnet")
    page.click('th[data-column="accuracy_test"] button')
    page.click("#theme")
    count = page.inner_text("#count")
    first = page.inner_text(f"{ROWS}:first-child")
    page.reload()
    page.wait_for_selector("html[data-ready=true]")
    assert page.inner_text("#count") == count == "6 of 92 trials"
    assert page.inner_text(f"{ROWS}:first-child") == first
    assert page.input_value("#search") == "resnet"
    assert page.get_attribute("html", "data-theme") == "dark"
    assert page.locator('.chip[aria-pressed="true"]').count() == 2
    shared = visit(report, "#" + page.url.partition("#")[2])
    assert shared.inner_text("#count") == count


def test_the_table_sorts_with_missing_values_last(page):

    def column(index: int) -> list[str]:
        return page.eval_on_selector_all(
            f"{ROWS} td:nth-child({index})", "all => all.map(e => e.textContent)"
        )

    page.click('th[data-column="accuracy_test"] button')
    assert page.get_attribute('th[data-column="accuracy_test"]', "aria-sort") == "descending"
    values = column(9)
    numbers = [float(v) for v in values if v != "–"]
    assert numbers == sorted(numbers, reverse=True)
    assert values[-2:] == ["–", "–"]
    page.click('th[data-column="accuracy_test"] button')
    values = column(9)
    assert [float(v) for v in values[:-2]] == sorted(numbers)
    assert values[-2:] == ["–", "–"]
    page.click('th[data-column="depth"] button')
    depths = [int(v) for v in column(4)]
    assert depths == sorted(depths)


def test_the_card_shows_the_trial_and_a_query_for_it(page):
    page.locator(f"{ROWS} td button").first.click()
    text = page.inner_text("#card")
    trial = page.locator(f"{ROWS} td button").first.inner_text()
    assert f"Trial {trial}" in text
    assert "reconstruction error" in text or "test accuracy" in text
    assert f"where trial_id = '{trial}'" in text
    assert f"revstudy rerun {trial}" in text
    assert '"strategy"' in text  # the full settings
    parts = page.eval_on_selector_all("#card-body h3", "all => all.map(e => e.textContent)")
    assert parts == ["Train it again", "Result", "Configuration", "Every setting", "Provenance", "Its epochs"]
    told = page.eval_on_selector_all("#card-body dt", "all => all.length")
    filled = page.evaluate(
        """trial => {
            const columns = JSON.parse(document.getElementById('payload').textContent).columns;
            const cells = c => c.codes ? c.codes.map(code => c.words[code]) : c.values;
            const row = cells(columns.find(c => c.name === 'trial_id')).indexOf(trial);
            return columns.filter(c => cells(c)[row] !== null).length;
        }""",
        trial,
    )
    assert 40 < filled - 2 <= told <= filled  # every column with a value, each in one part; two are its head
    assert len(set(page.eval_on_selector_all("#card-body dt", "all => all.map(e => e.title)"))) == told
    page.keyboard.press("Escape")
    assert page.locator("#card").is_hidden()
    page.locator(".answer button").first.click()
    assert "3 trials" in page.inner_text("#card")


def test_a_click_on_a_point_opens_its_trials(page):
    holder = show(page, "overhead")
    mark = holder.locator(".points path").first.bounding_box()
    page.mouse.move(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    page.wait_for_selector("#figure-overhead .hoverlayer .hovertext")
    hover = page.text_content("#figure-overhead .hoverlayer")
    assert "× the step time of storing" in hover
    assert re.search(r"trial [0-9a-f]{16}", hover)
    assert re.search(r"against [0-9a-f]{16}", hover)
    assert re.search(r"0\.\d+× its activation memory", hover)
    page.mouse.down()
    page.mouse.up()
    page.wait_for_selector("#card[open]")
    assert "2 trials" in page.inner_text("#card-title")


def test_the_rows_shown_download_as_csv(page):
    press_chip(page, "outcome", "oom")
    with page.expect_download() as waiting:
        page.click("#csv")
    rows = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text())))
    assert [row["outcome"] for row in rows] == ["oom"]
    assert rows[0]["memory_peak_bytes"].isdecimal()


def _luminance(color: str) -> float:
    channels = [int(v) / 255 for v in re.findall(r"\d+", color)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_are_readable_and_the_switch_turns_them(report, visit, scheme):
    page = visit(report, scheme=scheme)
    show(page, "tradeoff")
    color = "(selector, property) => getComputedStyle(document.querySelector(selector))[property]"

    def background() -> float:
        return _luminance(page.evaluate("() => getComputedStyle(document.body).backgroundColor"))

    before = background()
    assert (before < 0.05) == (scheme == "dark")
    for selector in ("body", ".headline", ".lead", ".answer dt", ".budget", ".count", "#table th", ".method"):
        ink = _luminance(page.evaluate(f"([s, p]) => ({color})(s, p)", [selector, "color"]))
        high, low = max(ink, before), min(ink, before)
        assert (high + 0.05) / (low + 0.05) >= 4.5, selector
    tick = "() => getComputedStyle(document.querySelector('#figure-tradeoff .xtick text')).fill"
    axis = _luminance(page.evaluate(tick))
    assert (axis > 0.5) == (scheme == "dark")
    page.click("#theme")
    assert abs(background() - before) > 0.5
    assert (_luminance(page.evaluate(tick)) > 0.5) == (scheme == "light")


def test_the_filters_are_within_reach_of_the_keyboard(report, visit):
    page = visit(report)
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "open-filters":
            break
    page.keyboard.press("Enter")
    assert page.get_attribute("#open-filters", "aria-expanded") == "true"
    for _ in range(3):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('chip')"):
            break
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    assert " of 92 trials" in page.inner_text("#count")


def test_the_skip_link_leads_to_the_answer_and_keeps_the_state(report, visit):
    page = visit(report, "#f.depth=14")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "answer"
    assert page.url.endswith("#f.depth=14")


def test_a_phone_needs_no_sideways_scrolling(report, visit):
    page = visit(report, width=390)
    show(page, "tradeoff")
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_paper_is_white_and_holds_every_figure(report, visit):
    page = visit(report, scheme="dark", width=720)
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    figures = page.locator("[data-figure]").count()
    assert page.locator("[data-figure] .plot-container").count() == figures == 16
    assert page.locator(".bar").is_hidden()
    widths = page.eval_on_selector_all(
        "[data-figure] .main-svg:first-of-type", "all => all.map(e => e.getBoundingClientRect().width)"
    )
    assert max(widths) <= 690
    assert (
        page.eval_on_selector("#table", "e => e.scrollWidth") <= (297 - 24) / 25.4 * 96
    )  # a page on its side
    page.eval_on_selector("#trials", "e => { e.style.display = 'none' }")
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    ink = page.evaluate("() => getComputedStyle(document.querySelector('.statement')).color")
    assert _luminance(ink) < 0.05
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen", color_scheme="dark")
    assert _luminance(page.evaluate("() => getComputedStyle(document.body).color")) > 0.5


def test_a_pdf_is_printed_without_an_error(report, visit):
    page = visit(report, scheme="dark")
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_colors_are_lighter_on_a_dark_page_and_tell_the_same_apart(report, visit):
    read = """() => document.getElementById('figure-tradeoff').data
        .filter(t => t.meta.role === 'legend').map(t => t.marker.color)"""
    colors = {}
    for scheme in ("light", "dark"):
        page = visit(report, scheme=scheme)
        show(page, "tradeoff")
        colors[scheme] = page.evaluate(read)
        page.click("#theme")
    assert len(set(colors["dark"])) == len(set(colors["light"])) == 2
    for light, dark in zip(colors["light"], colors["dark"], strict=True):
        ends = [
            _luminance(" ".join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))) for color in (light, dark)
        ]
        assert ends[0] < ends[1]
        assert (ends[1] + 0.05) / (_luminance("27 30 36") + 0.05) > 4.5


def test_a_filter_that_leaves_nothing_says_so(page):
    show(page, "tradeoff")
    page.fill("#search", "no such trial")
    assert page.inner_text("#count") == "0 of 92 trials"
    assert page.locator("#no-rows").is_visible()
    assert page.locator("#figure-tradeoff + .hidden-by-filter").is_visible()
    page.click("#clear")
    assert points(page, "tradeoff") == 30
    assert page.locator("#figure-tradeoff + .hidden-by-filter").is_hidden()


def test_unknown_words_in_the_address_do_no_harm(report, visit):
    page = visit(report, "#f.depth=999&sort=nothing:desc&sel=x,y&theme=pink&q=%3Cimg%20src%3Dx%3E&f.nope=1")
    assert page.inner_text("#count") == "0 of 92 trials"
    assert page.input_value("#search") == "<img src=x>"


@pytest.mark.parametrize("name", ["empty", "one", "failed"])
def test_a_store_with_little_in_it_still_makes_a_page(odd_reports, visit, name):
    page = visit(odd_reports[name])
    for figure in page.eval_on_selector_all("[data-figure]", "all => all.map(e => e.dataset.figure)"):
        assert points(page, figure) > 0
    expected = {"empty": 0, "one": 1, "failed": 3}[name]
    assert page.locator(ROWS).count() == expected
    empty = page.locator(".panel .empty").count()
    laws = sum(name.startswith("law_") for name in FIGURES)  # shown where a law can be fitted
    assert empty + page.locator("[data-figure]").count() == len(FIGURES) - laws
    assert page.locator(".answer").count() == (1 if name == "one" else 0)


def test_text_of_the_store_is_never_run(odd_reports, visit):
    page = visit(odd_reports["attack"])
    attack = "<script>window.attacked=1</script>"
    assert attack in page.inner_text("h1") or attack in page.inner_text("main")
    for figure in page.eval_on_selector_all("[data-figure]", "all => all.map(e => e.dataset.figure)"):
        show(page, figure)
    page.click("#open-filters")
    page.locator(f"{ROWS} td button").first.click()
    assert attack in page.inner_text("#card")
    page.keyboard.press("Escape")
    holder = show(page, "tradeoff")
    mark = holder.locator(".points path").first.bounding_box()
    page.mouse.move(mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2)
    page.wait_for_selector("#figure-tradeoff .hoverlayer .hovertext")
    assert attack in page.text_content("#figure-tradeoff .hoverlayer")
    assert page.evaluate("window.attacked") is None
    assert page.locator("img").count() == 0


def test_the_table_answers_before_the_figures_are_compiled(report, chromium):
    page = chromium.new_page(viewport={"width": 1280, "height": 300})
    try:
        page.add_init_script("window.IntersectionObserver = class { observe() {} unobserve() {} }")
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-ready=true]")
        press_chip(page, "strategy", "reverse")
        assert page.inner_text("#count") == "37 of 92 trials"
        assert page.evaluate("typeof Plotly") == "undefined"
    finally:
        page.close()


def test_a_cell_of_the_precision_map_is_the_median_over_what_is_left(page):
    show(page, "precision_map")
    read = """() => { const t = document.getElementById('figure-precision_map').data[1];
        return {rows: t.customdata[0][0], z: t.z[0][0], text: t.text[0][0]} }"""
    before = page.evaluate(read)
    press_chip(page, "width", "0.5")
    after = page.evaluate(read)
    assert set(after["rows"]) < set(before["rows"])
    cells = [float(page.locator(f'{ROWS}[data-row="{row}"] td').nth(9).inner_text()) for row in after["rows"]]
    assert after["z"] == pytest.approx(statistics.median(cells), abs=0.006)
    assert float(after["text"]) == pytest.approx(after["z"], abs=0.06)
    press_chip(page, "precision", "bf16")
    assert page.evaluate(read) == {"rows": [], "z": None, "text": ""}


def test_brushing_a_parallel_axis_selects_the_trials_that_pass_there(report, visit):
    page = visit(report)
    show(page, "parallel")
    box = page.locator("#figure-parallel .nsewdrag").first.bounding_box()
    count = page.evaluate("document.getElementById('figure-parallel').layout.xaxis.tickvals.length")
    left = box["x"] + box["width"] * 0.35 / (count - 0.1)  # the first axis is the depth, its top the deepest
    page.mouse.move(left - 12, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(left + 12, box["y"] + box["height"] * 0.2, steps=4)
    page.mouse.up()
    page.wait_for_function("document.querySelector('#count').textContent.includes(' of ')")
    depths = page.eval_on_selector_all(f"{ROWS} td:nth-child(4)", "all => all.map(e => e.textContent)")
    assert set(depths) == {"38"}
    assert len(depths) == 30


def test_a_page_that_follows_a_store_loads_itself_anew_and_keeps_its_filters(tmp_path, stores, visit):
    stores.write_trials(tmp_path / "s", [stores.trial_row(seed=i) for i in range(3)])
    out = write_report(tmp_path / "s", out=tmp_path / "r.html", refresh_s=1.5)
    page = visit(out, "#f.seed=1")
    page.wait_for_function("document.querySelector('#count')?.textContent === '1 of 3 trials'")
    stores.write_trials(tmp_path / "s", [stores.trial_row(seed=3)])
    write_report(tmp_path / "s", out=out, refresh_s=1.5)
    page.wait_for_function(  # in one breath, as the page may load itself anew at any other moment
        """() => {
            if (document.querySelector('#count')?.textContent !== '1 of 4 trials') return false;
            document.querySelector('#table tbody button').click();
            return window.mine = true;
        }"""
    )
    page.wait_for_timeout(2000)
    assert page.evaluate("window.mine") is True  # an open card is not taken from its reader


def test_settings_in_pieces_come_back_whole_on_the_card_and_in_the_file(tmp_path, stores, visit):
    rows = [stores.trial_row(seed=i, depth=14 + 12 * i) for i in range(2)]
    for row in rows:
        row["config_json"] = json.dumps(json.loads(row["config_json"]), sort_keys=True, separators=(",", ":"))
    stores.write_trials(tmp_path / "s", rows)
    page = visit(write_report(tmp_path / "s", out=tmp_path / "r.html"))
    assert rows[0]["config_json"] not in page.content()
    with page.expect_download() as waiting:
        page.click("#csv")
    saved = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text())))
    assert {r["config_json"] for r in saved} == {r["config_json"] for r in rows}
    page.locator(f"{ROWS} td button").first.click()
    assert '"strategy": "reverse"' in page.inner_text("#card")


def test_the_console_asks_and_answers(chromium, report, tmp_path, stores):
    stores.write_trials(tmp_path / "s", [stores.trial_row(seed=i, model="<b>x</b>") for i in range(3)])
    code = (
        "import sys; from analysis.report.serve import serve; "
        "serve(sys.argv[1], port=0, on_ready=lambda url: print(url, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "s")], stdout=subprocess.PIPE, text=True
    )
    page = chromium.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    try:
        page.goto(process.stdout.readline().strip())
        page.wait_for_selector("html[data-ready=true]")
        page.click("text=SQL")
        page.fill("#sql", "select model, count(*) as trials from trials group by all")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#answer tbody tr")
        assert page.inner_text("#answer tbody").split() == ["<b>x</b>", "3"]
        assert "1 row" in page.inner_text("#status")
        page.click("[data-query=studies]")
        page.wait_for_selector("#answer th:has-text('wall_s')")
        page.fill("#sql", "copy trials to 'x'")
        page.click("#ask button")
        page.wait_for_selector("#error:not([hidden])")
        assert "read-only" in page.inner_text("#error")
        assert page.locator("#answer").is_hidden()
        assert problems == []
    finally:
        page.close()
        process.terminate()
        process.wait()
