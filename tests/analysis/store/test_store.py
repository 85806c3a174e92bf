import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import analysis
from analysis.errors import QueryError, StoreError, UnknownStudyError
from analysis.schema import SCHEMA_VERSION, TABLES, TRIALS, VERSION_KEY
from analysis.store.compact import compact
from analysis.store.store import open_store


def test_views_hold_every_row_and_every_column(demo):
    for name, table in TABLES.items():
        assert demo.table(name).schema.equals(table.arrow)
    assert demo.sql("select count(*) as n from trials").to_pylist() == [{"n": 92}]
    assert demo.sql("select count(distinct trial_id) as n from epochs").to_pylist() == [{"n": 91}]
    assert demo.sql("select max(block) as last from blocks").to_pylist() == [{"last": 8}]
    assert demo.skipped == ()


def test_the_package_opens_a_store_for_arrow_and_pandas(demo_store):
    answer = analysis.open_store(demo_store).sql("select depth, count(*) as n from trials group by all")
    assert isinstance(answer, pa.Table)
    assert answer.to_pandas()["n"].sum() == 92
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = analysis.nothing


def test_an_empty_store_has_empty_typed_views(tmp_path):
    store = open_store(tmp_path)
    assert store.studies == ()
    assert store.sql("select accuracy_test from trials").schema.field(0).type == pa.float64()
    assert store.sql("select count(*) as n from blocks").to_pylist() == [{"n": 0}]


def test_the_last_good_attempt_is_the_row_and_brings_its_own_epochs(tmp_path, new_trial, write):
    trial = new_trial(seed=1)
    write(tmp_path, [{**trial, "attempt": 0, "accuracy_val": 0.5, "outcome": "failed"}])
    write(tmp_path, [{**trial, "attempt": 1, "accuracy_val": 0.8}])
    write(tmp_path, [{**trial, "attempt": 2, "accuracy_val": None, "outcome": "failed"}])
    store = open_store(tmp_path)
    assert store.sql("select attempt, outcome, accuracy_val from trials").to_pylist() == [
        {"attempt": 1, "outcome": "ok", "accuracy_val": 0.8}
    ]
    assert store.sql("select distinct attempt from epochs").to_pylist() == [{"attempt": 1}]
    assert store.sql("select distinct attempt from blocks").to_pylist() == [{"attempt": 1}]


def test_a_file_that_was_copied_gives_each_row_once_also_in_a_merged_file(tmp_path, new_trial, write):
    write(tmp_path, [new_trial(seed=seed, epochs=3, number=seed) for seed in range(3)])
    before = {name: open_store(tmp_path).rows(name) for name in TABLES}
    for name in TABLES:
        file = sorted((tmp_path / "study=demo" / name).iterdir())[1]
        for copy in ("copy-1-", "copy-2-"):
            (file.parent / f"{copy}{file.name}").write_bytes(file.read_bytes())
    assert {name: open_store(tmp_path).rows(name) for name in TABLES} == before
    compact(tmp_path)
    assert {name: open_store(tmp_path).rows(name) for name in TABLES} == before
    for name, rows in before.items():
        (file,) = (tmp_path / "study=demo" / name).glob("*.parquet")
        assert pq.read_metadata(file).num_rows == len(rows)


def test_of_rows_of_one_evaluation_that_differ_every_reader_takes_the_same(
    tmp_path, new_trial, write, write_file
):
    trial = new_trial(seed=0, epochs=1)
    write(tmp_path, [trial])
    (row,) = open_store(tmp_path).rows("epochs")
    for number in range(5):
        write_file(tmp_path, "epochs", [{**row, "epoch_s": 100.0 - number}], stem=f"copy-{number}-a0")
    found = open_store(tmp_path).rows("epochs")
    compact(tmp_path)
    assert found == open_store(tmp_path).rows("epochs")
    assert len(found) == 1


def test_of_attempts_that_all_failed_the_last_is_the_row(tmp_path, new_trial, write):
    trial = new_trial()
    for attempt in (0, 1, 10):
        write(tmp_path, [{**trial, "attempt": attempt, "outcome": "failed"}])
    assert open_store(tmp_path).sql("select attempt from trials").to_pylist() == [{"attempt": 10}]


@pytest.mark.parametrize("keep", [0, 3, 60, -8])
def test_a_torn_file_is_left_out_and_named(tmp_path, new_trial, write, write_file, keep):
    write(tmp_path, [new_trial(seed=0)])
    torn = write_file(tmp_path, "trials", [new_trial(seed=1)])
    torn.write_bytes(torn.read_bytes()[:keep])
    store = open_store(tmp_path)
    assert [row["seed"] for row in store.rows("trials")] == [0]
    assert [file.path for file in store.skipped] == [str(torn)]


def test_a_file_torn_inside_is_found_by_name(tmp_path, new_trial, write, write_file):
    write(tmp_path, [new_trial(seed=0)])
    torn = write_file(tmp_path, "trials", [new_trial(seed=1)])
    content = bytearray(torn.read_bytes())
    content[4:3000] = bytes(2996)
    torn.write_bytes(content)
    store = open_store(tmp_path)
    assert [row["seed"] for row in store.rows("trials")] == [0]
    (skipped,) = store.skipped
    assert skipped.path == str(torn)
    assert skipped.reason.startswith("cannot be read: ")


def test_foreign_and_hidden_files_are_left_out(tmp_path, new_trial, write):
    write(tmp_path, [new_trial()])
    folder = tmp_path / "study=demo" / "trials"
    pq.write_table(pa.table({"trial_id": ["x"], "outcome": ["ok"]}), folder / "foreign.parquet")
    (folder / "notes.txt").write_text("not a row")
    (folder / ".half-written.parquet").write_bytes(b"PAR1")
    (folder / "text.parquet").write_text("PAR, but not Parquet")
    store = open_store(tmp_path)
    assert store.table("trials").num_rows == 1
    reasons = {file.path.rpartition("/")[2]: file.reason for file in store.skipped}
    assert set(reasons) == {"foreign.parquet", "text.parquet"}
    assert "no schema version" in reasons["foreign.parquet"]
    assert reasons["text.parquet"] == "not a Parquet file"


def test_a_file_of_the_project_with_a_column_of_another_type_is_left_out(tmp_path, new_trial, write):
    write(tmp_path, [new_trial()])
    path = tmp_path / "study=demo" / "trials" / "odd-a0.parquet"
    schema = pa.schema([("trial_id", pa.string()), ("depth", pa.string())], {VERSION_KEY: b"1"})
    pq.write_table(pa.table({"trial_id": ["x"], "depth": ["deep"]}, schema=schema), path)
    store = open_store(tmp_path)
    assert [row["depth"] for row in store.rows("trials")] == [38]
    assert [file.path for file in store.skipped] == [str(path)]


@pytest.mark.parametrize("older_first", [True, False])
def test_a_column_that_a_file_lacks_reads_as_null(tmp_path, new_trial, write, write_file, older_first):
    names = [c.name for c in TRIALS.columns if c.name != "gradient_angle_deg"]
    row = new_trial(seed=7)
    schema = pa.schema([TRIALS.arrow.field(name) for name in names], TRIALS.arrow.metadata)
    write(tmp_path, [new_trial(seed=0)])
    path = tmp_path / "study=demo" / "trials" / ("0" if older_first else "z")
    pq.write_table(pa.Table.from_pylist([row], schema=schema), path.with_suffix(".parquet"))
    store = open_store(tmp_path)
    angles = {r["seed"]: r["gradient_angle_deg"] for r in store.rows("trials")}
    assert angles[7] is None
    assert angles[0] > 0
    assert store.skipped == ()


def test_a_newer_schema_is_refused_with_exit_code_3(tmp_path, new_trial, write_file):
    path = write_file(tmp_path, "trials", [new_trial()])
    table = pq.read_table(path, partitioning=None)
    newer = table.replace_schema_metadata({VERSION_KEY: str(SCHEMA_VERSION + 1).encode()})
    pq.write_table(newer, path)
    with pytest.raises(StoreError, match=f"schema version {SCHEMA_VERSION + 1}.*update revstudy") as caught:
        open_store(tmp_path).table("trials")
    assert caught.value.exit_code == 3


def test_a_missing_store_and_a_file_in_its_place_are_told(tmp_path):
    with pytest.raises(StoreError, match=r"does not exist.*revstudy run"):
        open_store(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="must be a folder"):
        open_store(tmp_path / "file")
    with pytest.raises(StoreError, match="cannot read"):
        open_store("nosuchscheme://bucket/store")


def test_a_uri_is_read_as_a_folder_is(demo_store):
    here, there = open_store(demo_store), open_store(f"file://{demo_store}")
    for name in TABLES:
        assert repr(here.rows(name)) == repr(there.rows(name))  # as text, since nan is not equal to itself


def test_one_study_alone_with_the_trials_it_shares(tmp_path, new_trial, write):
    first = [new_trial(study="first", seed=seed) for seed in range(3)]
    write(tmp_path, first)
    write(tmp_path, [new_trial(study="second", seed=9)])
    (tmp_path / "study=second" / "study.json").write_text(
        f'{{"name": "second", "trial_ids": ["{first[0]["trial_id"]}"]}}'
    )
    assert sorted(r["seed"] for r in open_store(tmp_path, "first").rows("trials")) == [0, 1, 2]
    second = open_store(tmp_path, "second")
    assert sorted(r["seed"] for r in second.rows("trials")) == [0, 9]
    assert {r["trial_id"] for r in second.rows("epochs")} == {r["trial_id"] for r in second.rows("trials")}
    whole = open_store(tmp_path)
    assert whole.studies == ("first", "second")
    assert sorted(r["seed"] for r in whole.trials_of("second")) == [0, 9]
    assert len(whole.trials_of(None)) == 4


def test_an_unknown_study_is_told_with_the_nearest_name(tmp_path, new_trial, write):
    write(tmp_path, [new_trial(study="quickstart")])
    with pytest.raises(UnknownStudyError, match="did you mean 'quickstart'") as caught:
        open_store(tmp_path, "quikstart")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "query",
    [
        "select 1 as one",
        "with t as (select depth from trials) select max(depth) from t",
        "from trials",
        "describe trials",
        "show tables",
        "summarize epochs",
        "values (1)",
        "select * from trials; ",
    ],
)
def test_read_only_statements_are_answered(demo, query):
    assert demo.sql(query).num_rows > 0


@pytest.mark.parametrize(
    "query",
    [
        "copy trials to 'x'",
        "attach 'y'",
        "select * from read_csv('any.csv')",
        "from 'any.csv'",
        'select * from "any.csv"',
        "select * from trials, 'any.csv'",
        "select (select count(*) from 'any.csv')",
        "with a as (select * from read_csv('any.csv')) select * from a",
        "with a as materialized (from 'any.csv') from a",
        "describe select * from 'any.csv'",
        "summarize 'any.csv'",
        "pivot 'any.csv' on a using count(*)",
        "select * from query_table('any.csv')",
        "select * from query('copy trials to x')",
        "select * from query('from \"any.csv\"')",
        "select * from read_json('any.csv')",
        "select * from read_blob('any.csv')",
        "select * from sniff_csv('any.csv')",
        "select * from sqlite_scan('a', 'b')",
        "select * from duckdb_secrets()",
        "select getenv('HOME')",
        "create secret s (type s3)",
        "prepare p as select 1",
        "set variable a = 1",
        "use memory",
        "detach memory",
        "comment on view trials is 'x'",
        "create macro m(a) as a",
        "select * from read_text('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from 'other.parquet'",
        "select * from glob('/*')",
        "select * from parquet_metadata('x.parquet')",
        "select * from read_parquet('https://example.org/x.parquet')",
        "install httpfs",
        "load httpfs",
        "create table t (a int)",
        "insert into trials select * from trials",
        "with x as (insert into trials select * from trials returning *) select * from x",
        "with x as (delete from trials) select 1",
        "update trials set depth = 0",
        "drop view trials",
        "set threads = 1",
        "set enable_external_access = true",
        "reset lock_configuration",
        "pragma version",
        "call pragma_version()",
        "export database 'x'",
        "explain analyze select 1",
        "select 1; select 2",
        "select 1; drop view trials",
        "select * from frame",
        "",
        "  -- nothing",
    ],
)
def test_everything_else_is_refused_and_leaves_no_trace(demo, tmp_path, monkeypatch, query):
    monkeypatch.chdir(tmp_path)
    frame = pa.table({"a": [1]})  # a local variable that DuckDB would otherwise read
    (tmp_path / "any.csv").write_text("a\n1\n")
    with pytest.raises(QueryError) as caught:
        demo.sql(query)
    assert caught.value.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["any.csv"]
    assert demo.sql("select count(*) as n from trials").to_pylist() == [{"n": 92}]
    assert frame.num_rows == 1


def test_bad_sql_gives_the_message_of_duckdb(demo):
    with pytest.raises(QueryError, match='Parser Error: syntax error at or near "selec"'):
        demo.sql("selec 1")
    with pytest.raises(QueryError, match='Referenced column "accuracy" not found'):
        demo.sql("select accuracy from trials")
    with pytest.raises(QueryError, match="Could not convert string 'x'"):
        demo.sql("select cast('x' as integer)")


def test_a_dynamic_query_sees_the_rows_too(demo):
    found = demo.sql("select * from query('select count(*) as n from bl' || 'ocks')").to_pylist()
    assert found[0]["n"] == demo.table("blocks").num_rows > 0


def test_an_unknown_table_is_told(demo):
    with pytest.raises(QueryError, match="did you mean 'epochs'"):
        demo.table("epoch")
