"""The verbs that read: what they print, as text and as JSON, and how they fail."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.schema import SCHEMA_VERSION, TRIALS, VERSION_KEY
from tests.cli.conftest import finish, start

VERBS = ("plan", "run", "submit", "status", "query", "report", "models", "datasets", "doctor", "schema")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(revstudy, verb):
    answer = revstudy(verb, "--help")
    assert answer.code == 0
    assert f"revstudy {verb}" in answer.out.partition("Example")[2]
    assert "--json" in answer.out


def test_help_lists_every_verb(revstudy):
    answer = revstudy("--help")
    assert answer.code == 0
    for verb in VERBS:
        assert verb in answer.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["report", "--help"],
        ["query", "select count(*) as n from trials", "--store", "STORE"],
        ["status", "--store", "STORE"],
        ["report", "smoke", "--store", "STORE", "-o", "REPORT"],
    ],
    ids=["help", "report help", "query", "status", "report"],
)
def test_reading_imports_neither_torch_nor_ray(smoke, tmp_path, arguments):
    _, store = smoke
    places = {"STORE": str(store), "REPORT": str(tmp_path / "report.html")}
    code = (
        "import sys; from study.cli import main as cli\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'ray', 'optuna', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *(places.get(a, a) for a in arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_plan_counts_trials_and_predicts_memory(revstudy, store):
    said = json.loads(revstudy("plan", "smoke", "--store", store, "--json").out)
    assert (said["study"], said["to_run"], said["already_done"]) == ("smoke", 3, 0)
    assert all(trial["memory_predicted_bytes"] > 0 for trial in said["trials"])
    assert len({trial["trial_id"] for trial in said["trials"]}) == 3
    text = revstudy("plan", "smoke", "--store", store).out
    assert "smoke: 3 new grid trials" in text
    assert "MB" in text
    assert not store.exists()


@pytest.mark.parametrize("scale", [[], ["--scale", "demo"]], ids=["whole", "demo"])
def test_plan_of_the_quickstart_keeps_its_promises(revstudy, store, scale):
    said = json.loads(revstudy("plan", "quickstart", *scale, "--no-predict", "--store", store, "--json").out)
    trials = [trial["settings"] for trial in said["trials"]]
    assert len(trials) >= 24
    assert said["duplicates"] == 0
    assert len({s["model"]["depth"] for s in trials}) >= 3
    assert len({s["model"]["width"] for s in trials}) >= 2
    assert {s["precision"]["compute"] for s in trials} >= {"fp32", "bf16"}
    assert {s["memory"]["strategy"] for s in trials} >= {"store", "reverse"}
    assert {s["scaling"]["workers"] for s in trials} == {1, 2}
    assert len({s["seed"] for s in trials}) >= 2
    (search,) = said["searches"]
    assert search["objectives"] == {
        "accuracy_val": "max",
        "memory_peak_bytes": "min",
        "reconstruction_rel_error": "min",
    }


def test_status_counts_by_study(revstudy, smoke):
    _, store = smoke
    (row,) = json.loads(revstudy("status", "--store", store, "--json").out)["studies"]
    assert (row["study"], row["trials"], row["ok"], row["failed"]) == ("smoke", 3, 3, 0)
    assert 0 < row["best_accuracy_test"] <= 1
    assert "smoke" in revstudy("status", "smoke", "--store", store).out
    wrong = revstudy("status", "smok", "--store", store)
    assert wrong.code == 2
    assert "did you mean 'smoke'" in wrong.err


def test_status_watches_until_it_is_interrupted(smoke):
    _, store = smoke
    process = start("status", "--watch", "--every", "0.2", "--json", "--store", store)
    try:
        said = ""
        while not said.endswith("\n}\n"):
            said += process.stdout.readline()
        process.send_signal(signal.SIGINT)
        answer = finish(process, timeout=60)
    finally:
        process.kill()
    (study,) = json.loads(said)["studies"]
    assert (study["planned"], study["left"], study["running"], study["retried"]) == (3, 0, 0, 0)
    assert answer.code == 0
    assert "stopped" in answer.err


def test_query_answers_in_every_format(revstudy, smoke):
    _, store = smoke
    sql = "select family, strategy, max(accuracy_test) as best from trials group by all order by all"
    rows = json.loads(revstudy("query", sql, "--store", store, "--json").out)
    assert [(r["family"], r["strategy"]) for r in rows] == [
        ("resnet", "store"),
        ("revnet", "reverse"),
        ("revnet", "store"),
    ]
    assert rows == json.loads(revstudy("query", sql, "--store", store, "--format", "json").out)
    lines = list(csv.DictReader(io.StringIO(revstudy("query", sql, "--store", store, "--format", "csv").out)))
    assert [float(line["best"]) for line in lines] == [row["best"] for row in rows]
    assert "revnet" in revstudy("query", sql, "--store", store).out


@pytest.mark.parametrize(
    ("sql", "part"),
    [
        ("select nothing from trials", "nothing"),
        ("drop view trials", "read-only"),
        ("copy trials to 'x.csv'", "read-only"),
        ("select 1; select 2", "2 statements"),
    ],
)
def test_a_bad_query_exits_2(revstudy, smoke, sql, part):
    answer = revstudy("query", sql, "--store", smoke[1])
    assert answer.code == 2
    assert part in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("verb", [["status"], ["query", "select 1"], ["report"]])
def test_a_store_that_is_not_there_exits_3(revstudy, store, verb):
    answer = revstudy(*verb, "--store", store)
    assert answer.code == 3
    assert str(store) in answer.err
    assert not store.exists()


@pytest.mark.parametrize("verb", [["status"], ["query", "select * from trials"], ["run", "smoke"]])
def test_a_store_of_a_newer_version_exits_3(revstudy, store, verb):
    folder = store / "study=future" / "trials"
    folder.mkdir(parents=True)
    newer = TRIALS.arrow.with_metadata({VERSION_KEY: str(SCHEMA_VERSION + 1).encode()})
    pq.write_table(
        pa.Table.from_pylist([{"trial_id": "f" * 16, "outcome": "ok"}], newer), folder / "f-a0.parquet"
    )
    answer = revstudy(*verb, "--store", store)
    assert answer.code == 3
    assert "newer" in answer.err
    assert "Traceback" not in answer.err


def test_report_writes_one_file_into_the_store_or_where_it_is_told(revstudy, smoke, tmp_path):
    _, store = smoke
    said = json.loads(revstudy("report", "smoke", "--store", store, "--json").out)
    assert said["report"] == str(store / "smoke.html")
    assert said["bytes"] == (store / "smoke.html").stat().st_size > 1_000_000
    assert revstudy("report", "smoke", "--store", store, "-o", tmp_path / "r.html").code == 0
    assert (tmp_path / "r.html").is_file()
    assert revstudy("report", "smokey", "--store", store).code == 2


def test_models_have_the_paper_s_parameters(revstudy):
    rows = {row["model"]: row for row in json.loads(revstudy("models", "--json").out)}
    assert rows["revnet110"]["parameters_10"] == 1_729_194
    assert rows["revnet110"]["parameters_100"] == 1_740_804
    assert rows["resnet32"]["parameters_10"] == 464_154
    assert "reverse" not in rows["resnet32"]["strategies"]
    only = json.loads(revstudy("models", "revnet1*", "--json").out)
    assert [row["model"] for row in only] == ["revnet104", "revnet110", "revnet164"]
    wrong = revstudy("models", "revnet11")
    assert wrong.code == 2
    assert "revnet110" in wrong.err


def test_datasets_say_how_to_get_what_is_missing(revstudy, monkeypatch, tmp_path):
    monkeypatch.setenv("REVSTUDY_DATA", str(tmp_path))
    rows = {row["data"]: row for row in json.loads(revstudy("datasets", "--json").out)}
    assert rows["digits"]["at_hand"] and not rows["digits"]["to_get"]
    assert not rows["cifar10"]["at_hand"]
    assert str(tmp_path) in rows["cifar10"]["to_get"]
    told = revstudy("datasets").out
    assert "To get cifar10: set data.download: true" in told
    assert max(map(len, told.replace(str(tmp_path), "").splitlines())) <= 120
    (tmp_path / "cifar-10-batches-py").mkdir()
    rows = {row["data"]: row for row in json.loads(revstudy("datasets", "--json").out)}
    assert rows["cifar10"]["at_hand"] and not rows["cifar10"]["to_get"]


def test_doctor_finds_this_machine_ready_and_a_bad_store_not(revstudy, tmp_path):
    good = revstudy("doctor", "--store", tmp_path / "store", "--json")
    checks = {check["name"]: check for check in json.loads(good.out)["checks"]}
    assert checks["torch"]["ok"] and checks["ray"]["ok"] and checks["revmodels"]["ok"]
    assert checks["store"]["found"].endswith("can be created")
    assert not (tmp_path / "store").exists()
    (tmp_path / "file").touch()
    bad = revstudy("doctor", "--store", tmp_path / "file")
    assert bad.code == 1
    assert "PROBLEM" in bad.out


def test_schema_describes_study_files_and_tables(revstudy):
    schema = json.loads(revstudy("schema").out)
    assert {"name", "data", "model", "train", "search"} <= schema["properties"].keys()
    columns = json.loads(revstudy("schema", "trials", "--json").out)
    assert [column["column"] for column in columns] == [column.name for column in TRIALS.columns]
    assert revstudy("schema", "trails").code == 2
