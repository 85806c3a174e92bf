import csv
import io
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.errors import QueryError
from analysis.formats import FORMATS, render
from analysis.named_queries import NAMED
from analysis.pareto import pareto_mask
from analysis.queries import describe, list_queries, run_query
from analysis.schema import TABLES
from analysis.score import score_of
from analysis.store.store import open_store


@pytest.mark.parametrize("name", NAMED)
def test_every_named_query_answers_on_a_full_and_on_an_empty_store(demo, tmp_path, name):
    full, empty = run_query(demo, name), run_query(open_store(tmp_path), name)
    assert full.num_rows > 0
    assert empty.num_rows == 0
    assert full.column_names == empty.column_names


def test_pareto_agrees_with_the_mask(demo):
    rows = [r for r in demo.rows("trials") if r["outcome"] == "ok"]
    mask = pareto_mask([(r["accuracy_test"], r["memory_peak_bytes"]) for r in rows], ("max", "min"))
    expected = {r["trial_id"] for r, on in zip(rows, mask, strict=True) if on}
    assert {r["trial_id"] for r in run_query(demo, "pareto").to_pylist()} == expected


def test_failures_names_what_where_and_why(demo):
    rows = run_query(demo, "failures").to_pylist()
    assert {r["outcome"] for r in rows} == {"diverged", "oom"}
    assert any("allocate 9 GB" in r["error_message"] for r in rows)


def test_best_averages_seeds(demo):
    rows = run_query(demo, "best").to_pylist()
    assert all(row["seeds"] == 3 for row in rows)
    scores = [row["accuracy_val"] for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_trials_that_differ_in_training_are_no_seeds_of_one_another(tmp_path, new_trial, write):
    rows = [
        new_trial(seed=0, learning_rate=rate, accuracy_val=value, trial_id=f"{value}")
        for rate, value in ((0.1, 0.9), (0.01, 0.5))
    ]
    store = open_store(write(tmp_path, [*rows, new_trial(seed=1, learning_rate=0.1, accuracy_val=0.8)]))
    found = run_query(store, "best").to_pylist()
    assert [(r["learning_rate"], r["seeds"]) for r in found] == [(0.1, 2), (0.01, 1)]
    assert found[0]["accuracy_val"] == pytest.approx(0.85)
    assert {r["learning_rate"]: r["trials"] for r in run_query(store, "convergence").to_pylist()} == {
        0.1: 2, 0.01: 1
    }  # fmt: skip


def test_a_name_nearly_right_is_told_the_right_one(demo):
    with pytest.raises(QueryError, match="did you mean 'pareto'"):
        run_query(demo, "paretto")


def test_list_and_describe_cover_everything():
    assert list_queries().column("name").to_pylist() == list(NAMED)
    whole = describe()
    assert whole.num_rows == sum(len(table.columns) for table in TABLES.values())
    assert all(meaning for meaning in whole.column("meaning").to_pylist())
    assert set(describe("blocks").column("table").to_pylist()) == {"blocks"}
    with pytest.raises(QueryError, match="did you mean 'trials'"):
        describe("trial")


@pytest.fixture
def answer():
    return pa.table(
        {
            "text": ['a|b, "c"', None, "x\x1b[31m\ny"],
            "count": pa.array([1, 2_000_000_000_000, None], pa.int64()),
            "share": [0.123456, float("nan"), float("-inf")],
        }
    )


def test_json_is_valid_and_keeps_every_row(answer):
    assert json.loads(render(answer, "json")) == [
        {"text": 'a|b, "c"', "count": 1, "share": 0.123456},
        {"text": None, "count": 2_000_000_000_000, "share": None},
        {"text": "x\x1b[31m\ny", "count": None, "share": None},
    ]


def test_json_keeps_both_columns_of_one_name(demo):
    table = demo.sql("select 1 as a, 2 as a, ['nan'::double] as b, {'c': 1} as d")
    (row,) = json.loads(render(table, "json"))
    assert sorted(v for v in row.values() if isinstance(v, int)) == [1, 2]
    assert len(row) == 4


def test_csv_reads_back(answer):
    rows = list(csv.reader(io.StringIO(render(answer, "csv"))))
    assert rows[0] == ["text", "count", "share"]
    assert rows[1] == ['a|b, "c"', "1", "0.123456"]
    assert rows[3] == ["x\x1b[31m\ny", "", "-inf"]


def test_parquet_reads_back(answer):
    back = pq.read_table(io.BytesIO(render(answer, "parquet")))
    assert back.schema.equals(answer.schema)
    assert repr(back.to_pylist()) == repr(answer.to_pylist())  # as text, since nan is not equal to itself


def test_markdown_escapes_its_own_marks(answer):
    lines = render(answer, "markdown").splitlines()
    assert lines[0] == "| text | count | share |"
    assert lines[1] == "| --- | ---: | ---: |"
    assert lines[2] == '| a\\|b, "c" | 1 | 0.1235 |'
    assert len(lines) == 5


def test_the_text_table_is_aligned_and_steers_no_terminal(answer):
    text = render(answer)
    lines = text.splitlines()
    assert "\x1b" not in text
    assert len(lines) == 6
    assert lines[-1] == "(3 rows)"
    assert lines[2].startswith('a|b, "c"')
    assert lines[4].endswith("-inf")


def test_every_format_writes_an_empty_answer(demo):
    empty = demo.sql("select trial_id from trials where false")
    for format in FORMATS:
        assert render(empty, format)
    assert render(empty, "json") == "[]"


def test_values_beyond_python_are_written_and_others_told(demo):
    far = demo.sql("select date '29000-01-01' as d")
    assert json.loads(render(far, "json")) == [{"d": "29000-01-01"}]
    with pytest.raises(QueryError, match=r"the format parquet cannot hold this answer .*cast the column"):
        render(demo.sql("select interval '1 year' as i"), "parquet")


def test_an_unknown_format_is_told(answer):
    with pytest.raises(QueryError, match="did you mean 'markdown'"):
        render(answer, "markdwn")


LANGUAGE = {"task": "language", "accuracy_val": None, "accuracy_test": None, "family": "revgpt"}


def language_trial(new_trial, *, strategy="reverse", bits=2.0, seed=0, **changes):
    return new_trial(
        **LANGUAGE, epochs_done=0, strategy=strategy, seed=seed, bits_per_byte_val=bits,
        bits_per_byte_test=bits + 0.1, loss_val=bits * math.log(2), **changes,
    )  # fmt: skip


@pytest.fixture
def language(tmp_path, new_trial, write, write_file):
    rows = [
        language_trial(new_trial, strategy=strategy, bits=bits + 0.01 * seed, seed=seed, width=width)
        for strategy, width, bits in (("store", 1.0, 2.0), ("reverse", 1.0, 2.05), ("reverse", 2.0, 1.9))
        for seed in (0, 1)
    ]
    curves = [
        {
            **{key: row[key] for key in ("trial_id", "study", "attempt")},
            "epoch": epoch,
            "bits_per_byte_val": row["bits_per_byte_val"] + 0.02 * (3 - epoch),
        }
        for row in rows
        for epoch in (1, 2, 3)
    ]
    write(tmp_path, rows)
    write_file(tmp_path, "epochs", curves)
    return open_store(tmp_path)


def test_language_models_are_judged_by_bits_per_byte(language):
    best = run_query(language, "best").to_pylist()
    assert [(r["strategy"], r["width"], r["seeds"]) for r in best] == [
        ("reverse", 2.0, 2), ("store", 1.0, 2), ("reverse", 1.0, 2)
    ]  # fmt: skip
    assert best[0]["bits_per_byte_val"] == pytest.approx(1.905) and best[0]["accuracy_val"] is None
    rows = list(language.rows("trials"))
    mask = pareto_mask([(r["bits_per_byte_val"], r["memory_peak_bytes"]) for r in rows], ("min", "min"))
    expected = {r["trial_id"] for r, on in zip(rows, mask, strict=True) if on}
    assert {r["trial_id"] for r in run_query(language, "pareto").to_pylist()} == expected
    assert {r["epochs_needed"] for r in run_query(language, "convergence").to_pylist()} == {3}
    spreads = [r["bits_per_byte_test_std"] for r in run_query(language, "seeds").to_pylist()]
    assert spreads == pytest.approx([0.01 / math.sqrt(2)] * 3)


def test_what_a_trial_is_judged_by_is_what_sentences_judge_it_by(language, demo):
    for store in (language, demo):
        named = {r["trial_id"]: r["score"] for r in run_query(store, "pareto").to_pylist()}
        rows = {r["trial_id"]: r for r in store.rows("trials")}
        assert named == {trial: score_of(rows[trial]).stem for trial in named} and named


def test_trainings_of_another_length_are_no_seeds_of_one_another(tmp_path, new_trial, write):
    rows = [
        language_trial(
            new_trial, seed=seed, bits=3.0 - tokens / 1e6, trial_id=f"{tokens}-{seed}",
            config_json=json.dumps({"seed": seed, "train": {"tokens": tokens}}),
        )
        for tokens in (100_000, 900_000)
        for seed in (0, 1)
    ]  # fmt: skip
    found = run_query(open_store(write(tmp_path, rows)), "best").to_pylist()
    assert [(r["bits_per_byte_val"], r["seeds"]) for r in found] == [(pytest.approx(2.1), 2), (2.9, 2)]


def test_strategies_names_the_front_of_memory_and_time_and_what_dominates_the_rest(
    tmp_path, new_trial, write
):
    costs = {
        "store": (100, 1.0), "reverse": (20, 1.3), "checkpoint": (40, 1.35), "offload": (30, 9.0),
        "budget": (60, 1.1), "segments": (70, 1.1),
    }  # fmt: skip
    rows = [
        new_trial(
            strategy=name, seed=seed, memory_peak_bytes=peak, step_time_s=time, depth=depth,
            memory_budget_bytes=60_000_000 if name == "budget" else None,
            trial_id=f"{name}-{seed}-{depth}",
        )
        for name, (peak, time) in costs.items()
        for depth in (38, 110)
        for seed in (0, 1)
        if depth == 38 or name != "reverse"
    ]  # fmt: skip
    other = new_trial(strategy="store", memory_peak_bytes=1, step_time_s=0.1, device="another machine")
    found = run_query(open_store(write(tmp_path, [*rows, other])), "strategies").to_pylist()
    here = [r for r in found if r["device"] != "another machine"]
    at = {(r["depth"], r["strategy"]): r for r in here}
    assert all(r["trials"] == 2 for r in here) and len(at) == 11
    for depth in (38, 110):
        place = [r for r in here if r["depth"] == depth]
        points = [(r["memory_peak_bytes"], r["step_time_s"]) for r in place]
        mask = pareto_mask(points, ("min", "min"))
        assert [r["on_front"] for r in place] == list(mask)
        assert [r["dominated_by"] is None for r in place] == list(mask)
    assert at[38, "checkpoint"]["dominated_by"] == at[38, "offload"]["dominated_by"] == "reverse"
    assert at[38, "segments"]["dominated_by"] == "budget, within 60.0 MB"
    assert at[110, "offload"]["on_front"] and at[110, "checkpoint"]["on_front"]


def test_couplings_shows_predicted_and_measured_growth_of_each_coupling(tmp_path, new_trial, write_file):
    rules = ((None, 1.0, 3.0), ("momentum(gamma=0.5)", 16.0, 20.0))
    rows = [
        new_trial(trial_id=f"{rule}", coupling_rule=rule, coupling_growth_predicted=growth, accuracy_val=0.5)
        for rule, growth, _ in rules
    ]
    blocks = [
        {
            **{name: row[name] for name in ("trial_id", "study", "attempt")},
            "epoch": epoch,
            "block": block,
            "reconstruction_rel_error": 1e-7 * error,
        }
        for row, (_, _, measured) in zip(rows, rules, strict=True)
        for epoch in (0, 1)
        for block, error in ((0, None if epoch == 0 else 99), (1, measured), (2, 2), (3, 1))
        if error is not None
    ]
    for table, content in (("trials", rows), ("blocks", blocks)):
        write_file(tmp_path, table, content)
    store = open_store(tmp_path)
    found = run_query(store, "couplings").to_pylist()
    assert [(r["coupling_rule"], r["growth_predicted"]) for r in found] == [
        ("additive", 1.0), ("momentum(gamma=0.5)", 16.0)
    ]  # fmt: skip
    assert [r["growth_measured"] for r in found] == pytest.approx([3.0, 20.0])
    assert len(run_query(store, "best").to_pylist()) == 2
