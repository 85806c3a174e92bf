import json
import re
import subprocess
import sys

import pytest

from analysis.cohort import Cohort
from analysis.errors import AnalysisError, StoreError, UnknownStudyError
from analysis.report.layout import sections
from analysis.report.page import render_report, write_report
from analysis.report.payload import json_for_html, settings
from analysis.schema import TRIALS
from analysis.score import ACCURACY
from analysis.store.store import open_store

SECTIONS = sections(ACCURACY)


def _payload(page: str, part: str = "payload"):
    found = re.search(rf'<script type="application/json" id="{part}">(.*?)</script>', page, re.S)
    return json.loads(found[1])


def _own_html(page: str) -> str:
    """The page without its scripts."""
    return re.sub(r"<script\b.*?</script>", "", page, flags=re.S)


@pytest.fixture(scope="module")
def page(demo_store, tmp_path_factory):
    return write_report(demo_store, out=tmp_path_factory.mktemp("out") / "r.html").read_text()


def test_the_file_goes_where_it_is_asked_to(demo_store, tmp_path, new_trial, write):
    write(tmp_path / "store", [new_trial(study="quick")])
    assert write_report(tmp_path / "store", "quick") == tmp_path / "store" / "quick.html"
    assert write_report(tmp_path / "store") == tmp_path / "store" / "report.html"
    out = write_report(demo_store, out=tmp_path / "new" / "folder" / "x.html")
    assert out == tmp_path / "new" / "folder" / "x.html"
    assert [p.name for p in out.parent.iterdir()] == ["x.html"]


def test_the_same_rows_give_the_same_bytes(demo_store, tmp_path, page):
    assert write_report(demo_store, out=tmp_path / "again.html").read_text() == page


def test_it_opens_with_the_answer_and_has_every_section(page):
    places = [
        page.index(f'id="{anchor}"')
        for anchor in ("answer", *(s.anchor for s in SECTIONS), "trials", "method")
    ]
    assert places == sorted(places)
    assert "What to train with" in page
    assert page.count('class="answer"') == 4
    assert "At depth 38 reversing takes 5.75× less" in page


def test_rows_are_there_once_and_complete(page):
    payload = _payload(page)
    assert payload["n"] == 92
    columns = {c["name"]: c for c in payload["columns"]}
    assert len(columns["trial_id"]["values"]) == 92
    assert columns["outcome"]["words"] == ["ok", "diverged", "oom"]
    assert columns["accuracy_val"]["values"][90] == "NaN"
    assert columns["loss_val"]["values"][90] == "Infinity"
    assert columns["accuracy_test"]["values"][91] is None
    assert page.count("plotly.js v") == 1
    panels = {p.figure for s in SECTIONS for p in s.panels}
    assert set(_payload(page, "figures")) == panels - {
        "search_history",
        "importance",
        "contour",
        "scaling",
    }  # no search in this store, and one worker


def test_every_id_is_there_once(page):
    ids = re.findall(r'\bid="([^"]+)"', _own_html(page))
    assert len(ids) == len(set(ids)) > 20


def test_it_asks_for_nothing_from_a_network(page):
    html = _own_html(page)
    assert not re.search(r'(?:src|href)="(?!#|data:)', html)
    assert "default-src 'none'" in html
    assert "connect-src" not in html


def test_text_of_the_store_stays_text(tmp_path, new_trial, write):
    attack = "</script><script>window.attacked=1</script><img src=x onerror=alert(1)>"
    rows = [
        new_trial(
            study=attack, model=attack, data=attack, device=attack, outcome="failed", error_message=attack
        ),
        new_trial(study=attack, seed=1, error_class=attack, trial_id=attack[:30], config_json=attack),
    ]
    write(tmp_path, [{**r, "trial_id": f"t{i}"} for i, r in enumerate(rows)], folder="odd")
    page = write_report(tmp_path).read_text()
    assert "<script>window" not in page
    assert "<img src=x" not in page
    assert page.count("</script>") == 4
    assert _payload(page)["n"] == 2


@pytest.mark.parametrize("value", ["</script>", "<!--", "]]>", "\u2028", "&amp;", "\ud800"])
def test_json_cannot_leave_its_element(value):
    text = json_for_html({"a": [value, float("nan"), float("inf"), 2**60, True, None]})
    assert not set("<>&\u2028") & set(text)
    expected = value if value != "\ud800" else "?"
    assert json.loads(text) == {"a": [expected, "NaN", "Infinity", str(2**60), True, None]}


def test_an_empty_store_says_what_would_fill_every_section(tmp_path):
    html = _own_html(write_report(tmp_path).read_text())
    assert "This store holds no trial yet" in html
    for section in SECTIONS:
        for panel in section.panels:
            assert panel.if_empty in html.replace("&#39;", "'")
    assert 'class="answer"' not in html


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"outcome": "failed", "error_message": None, "accuracy_val": None, "memory_peak_bytes": None},
        {"accuracy_val": float("nan"), "accuracy_test": float("inf"), "step_time_s": float("nan")},
        dict.fromkeys(("depth", "width", "strategy", "compute_dtype", "model", "family", "data", "seed")),
        {"accuracy_test": None, "reconstruction_rel_error": float("inf")},
        {"seed": 2**62},
    ],
)
def test_odd_rows_are_reported(tmp_path, new_trial, write, changes):
    write(tmp_path, [{**new_trial(), **changes}])
    assert _payload(write_report(tmp_path).read_text())["n"] == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 0.0])
def test_columns_of_nothing_but_odd_numbers_are_reported(tmp_path, new_trial, write, value):
    metrics = [c.name for c in TRIALS.columns if c.type == "double" and c.name != "width"]
    counted = {} if value else {"memory_peak_bytes": 0, "memory_activation_bytes": 0}
    rows = [
        {**new_trial(depth=d, strategy=s, seed=i), **dict.fromkeys(metrics, value), **counted}
        for d in (14, 26, 38)
        for s in ("store", "reverse")
        for i in range(3)
    ]
    assert _payload(write_report(write(tmp_path, rows)).read_text())["n"] == 18


def test_settings_travel_by_path_and_come_back_to_the_letter(new_trial):
    texts = [
        '{"memory":{"strategy":"store"},"probe":null,"seed":1,"train":{"learning_rate":1e-05,"steps":[1,2]}}',
        '{"memory":{"strategy":"store"},"probe":{"every":2},"seed":2,"train":{"learning_rate":0.1,"steps":[]}}',
    ]
    found = settings(Cohort({**new_trial(), "config_json": text} for text in texts))
    assert [one["path"] for one in found] == [
        *("memory.strategy", "probe", "probe.every", "seed", "train.learning_rate", "train.steps")
    ]
    assert [one["words"][one["codes"][1]] for one in found] == ['"store"', None, "2", "2", "0.1", "[]"]
    assert [one["words"][one["codes"][0]] for one in found] == [
        '"store"',
        "null",
        None,
        "1",
        "1e-05",
        "[1,2]",
    ]
    dotted = '{"a.b":1}', '{"a":1,"a.b":2}', '{"a":{"b":1,"b.c":2}}'
    for odd in (None, "not JSON", '{"a": 1}', '{"b":1,"a":2}', '{"a b":1}', *dotted):
        assert settings(Cohort([{**new_trial(), "config_json": odd}])) is None


def test_a_recommendation_on_thin_ice_carries_a_caution(tmp_path, new_trial, write):
    rough = new_trial(compute="bf16", accuracy_val=0.99, gradient_rel_error=0.6, memory_peak_bytes=1_000_000)
    exact = new_trial(accuracy_val=0.95, accuracy_test=0.951, memory_peak_bytes=900_000)
    write(tmp_path / "a", [rough, exact])
    page = write_report(tmp_path / "a").read_text()
    assert "Not recommended: revnet38, depth 38, width 1, reverse, bf16, reaches" in page
    assert "because its gradients are off by 60 %, and more than 1 % is not safe." in page
    assert "<strong>95.1 %</strong>" in page
    assert page.count("One seed: how much of this is luck is unknown") == 1
    seeds = [new_trial(seed=i, memory_peak_bytes=900_000) for i in range(3)]
    write(tmp_path / "b", seeds)
    assert "Caution" not in write_report(tmp_path / "b").read_text()
    write(tmp_path / "c", [{**rough, "gradient_rel_error": float("nan")}])
    page = write_report(tmp_path / "c").read_text()
    assert "No configuration on digits has gradients within 1 % of the stored ones" in page
    assert "is off by an unknown amount" in page
    assert 'class="answers"' not in page


def test_the_studies_of_a_store_are_compared(tmp_path, new_trial, write):
    write(tmp_path, [new_trial(study="first", seed=i, number=i) for i in range(4)])
    write(tmp_path, [new_trial(study="second", compute="bf16", seed=i, number=9 + i) for i in range(4)])
    page = write_report(tmp_path).read_text()
    assert "Studies compared" in page
    assert "4 pairs of trials that differ in precision.compute and precision.stream" in page
    assert "Studies compared" not in write_report(tmp_path, "first").read_text()


def test_a_watched_page_loads_itself_anew_and_another_does_not(demo_store, tmp_path, page):
    assert _payload(page)["refresh_s"] is None
    watched = write_report(demo_store, out=tmp_path / "w.html", refresh_s=3.0).read_text()
    assert _payload(watched)["refresh_s"] == 3.0


def test_memory_that_buys_nothing_is_told(tmp_path, new_trial, write):
    small = new_trial(depth=14, accuracy_val=0.9, memory_peak_bytes=2_000_000)
    large = new_trial(depth=38, accuracy_val=0.8, memory_peak_bytes=9_000_000)
    write(tmp_path / "a", [small, large])
    told = "Using more than 2 MB (up to 9.00 MB) did not improve validation accuracy."
    assert told in write_report(tmp_path / "a").read_text()
    write(tmp_path / "b", [small, {**large, "accuracy_val": 0.95}])
    assert "did not improve validation" not in write_report(tmp_path / "b").read_text()


def test_a_file_left_out_is_named_without_the_machines_folders(tmp_path, new_trial, write, write_file):
    write(tmp_path, [new_trial()])
    torn = write_file(tmp_path, "trials", [new_trial(seed=1)], stem="torn")
    torn.write_bytes(b"PAR1")
    page = write_report(tmp_path).read_text()
    assert "study=demo/trials/torn.parquet" in page
    assert str(tmp_path) not in page


def test_errors_are_told_and_leave_nothing_behind(tmp_path, new_trial, write):
    with pytest.raises(StoreError):
        write_report(tmp_path / "nowhere")
    write(tmp_path / "store", [new_trial(study="quickstart")])
    with pytest.raises(UnknownStudyError, match="did you mean 'quickstart'"):
        write_report(tmp_path / "store", "quickstrat")
    (tmp_path / "file").touch()
    with pytest.raises(AnalysisError, match="cannot write the report"):
        write_report(tmp_path / "store", out=tmp_path / "file" / "r.html")
    assert not list((tmp_path / "store").glob("*.html"))


def test_the_report_needs_neither_torch_nor_ray():
    code = (
        "import sys, analysis.report.page, analysis.queries, analysis.answers.findings; "
        "print([m for m in ('torch', 'ray', 'study', 'revmodels', 'pandas', 'optuna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_precision_section_opens_with_its_answer(page, tmp_path, new_trial, write):
    assert re.search(
        r'<h2 id="precision-heading">Precision</h2>\s*<div data-part="precision"><p class="statement">'
        "A reversible network of depth",
        page,
    )
    write(tmp_path, [new_trial(strategy="store")])
    assert 'class="statement"' not in render_report(open_store(tmp_path))


def test_what_a_study_says_of_itself_stands_at_the_head_of_its_page(tmp_path, new_trial, write):
    write(tmp_path, [new_trial()])
    (tmp_path / "study=demo" / "study.json").write_text(
        '{"description": "Does <b>it</b>\\n run?", "trial_ids": []}'
    )
    assert '<p class="headline">Does &lt;b&gt;it&lt;/b&gt; run?</p>' in write_report(tmp_path).read_text()
    (tmp_path / "study=demo" / "study.json").write_text('{"description": 7}')
    assert "<h1>demo</h1>" in write_report(tmp_path, "demo").read_text()
