"""The verbs that read a store beyond `query` and `report`, on a store that was really run."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import time
import urllib.request

import pytest

from study.cli import run as cli_run
from study.store.leases import acquire
from tests.cli.conftest import start

VERBS = ("describe", "serve", "figures", "compare", "compact", "rerun")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(revstudy, verb):
    answer = revstudy(verb, "--help")
    assert answer.code == 0
    assert f"revstudy {verb}" in answer.out.partition("Example")[2]
    assert "--json" in answer.out


def test_named_queries_are_listed_and_columns_described(revstudy, smoke):
    listed = json.loads(revstudy("query", "--list", "--json").out)
    names = [row["name"] for row in listed]
    assert {"pareto", "best", "memory", "precision", "failures"} <= set(names)
    for name in names:
        assert revstudy("query", name, "--store", smoke[1], "--json").code == 0
    rows = json.loads(revstudy("describe", "--json").out)
    assert {row["table"] for row in rows} == {"trials", "epochs", "blocks"}
    peak = next(row for row in rows if row["column"] == "memory_peak_bytes")
    assert (peak["unit"], "peak" in peak["meaning"]) == ("bytes", True)
    wrong = revstudy("describe", "trails")
    assert (wrong.code, "did you mean 'trials'" in wrong.err) == (2, True)


@pytest.mark.parametrize(
    ("format", "part"),
    [("table", "row"), ("markdown", "| trial_id |"), ("latex", r"\begin{tabular}"), ("csv", "trial_id,data")],
)
def test_an_answer_comes_in_every_format(revstudy, smoke, format, part):
    answer = revstudy("query", "pareto", "--store", smoke[1], "--format", format)
    assert answer.code == 0
    assert part in answer.out
    assert revstudy("query", "pareto", "--store", smoke[1], "--format", "latecks").code == 2


@pytest.mark.parametrize("sql", ["copy trials to 'x'", "attach 'y'", "select * from read_csv('any.csv')"])
def test_statements_that_reach_beyond_the_store_are_refused(revstudy, smoke, sql, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = revstudy("query", sql, "--store", smoke[1])
    assert answer.code == 2
    assert answer.err.startswith("revstudy: ")
    assert "Traceback" not in answer.err
    assert not list(tmp_path.iterdir())


def test_two_stores_are_compared(revstudy, smoke, tmp_path):
    shutil.copytree(smoke[1], tmp_path / "other")
    same = json.loads(revstudy("compare", smoke[1], tmp_path / "other", "--json").out)
    assert (same["shared"], same["pairs"], same["settings"]) == (3, 0, [])
    text = revstudy("compare", "smoke", tmp_path / "other", "--store", smoke[1]).out
    assert "3 trials the very same on both sides" in text
    wrong = revstudy("compare", "smoke", "smoky", "--store", smoke[1])
    assert (wrong.code, "did you mean 'smoke'" in wrong.err) == (2, True)


def test_a_merged_store_answers_the_same_and_nothing_is_trained_again(revstudy, smoke, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(smoke[1], store)
    sql = "select * from epochs order by all"
    before = revstudy("query", sql, "--store", store, "--json").out
    done = json.loads(revstudy("compact", "--store", store, "--json").out)
    assert {(row["table"], row["files"]) for row in done["merged"]} >= {("trials", 3), ("epochs", 3)}
    assert revstudy("query", sql, "--store", store, "--json").out == before
    assert "Nothing to merge" in revstudy("compact", "--store", store).out
    assert (
        json.loads(revstudy("plan", "smoke", "--no-predict", "--store", store, "--json").out)["to_run"] == 0
    )


def test_a_run_merges_the_files_of_a_study_that_has_very_many(revstudy, smoke, tmp_path, monkeypatch):
    store = tmp_path / "store"
    shutil.copytree(smoke[1], store)
    sql = "select * from epochs order by all"
    before = revstudy("query", sql, "--store", store, "--json").out
    monkeypatch.setattr(cli_run, "MANY_FILES", 5)

    def epochs():
        return [file.name for file in (store / "study=smoke" / "epochs").glob("*.parquet")]

    kept = revstudy("run", "smoke", "--no-merge", "--store", store)
    assert (kept.code, "merging" in kept.err, len(epochs())) == (0, False, 3)
    hold = acquire(store, "0" * 16, study="other", epochs=1, run="another")
    assert "another run is training" in revstudy("run", "smoke", "--store", store).err
    assert len(epochs()) == 3
    hold.release()
    lock = (store / "study=smoke" / ".compact.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    busy = revstudy("run", "smoke", "--store", store)
    assert (busy.code, "they stay as they are: another process" in busy.err, len(epochs())) == (0, True, 3)
    lock.close()
    done = revstudy("run", "smoke", "--store", store)
    assert (done.code, "merging" in done.err, len(epochs())) == (0, True, 1)
    assert revstudy("query", sql, "--store", store, "--json").out == before
    assert "merging" not in revstudy("run", "smoke", "--store", store).err


def test_a_trial_trained_again_gives_the_same_numbers(revstudy, smoke):
    (row,) = json.loads(
        revstudy("query", "select trial_id from trials order by 1 limit 1", "--store", smoke[1], "--json").out
    )
    said = json.loads(revstudy("rerun", row["trial_id"][:8], "--store", smoke[1], "--json").out)
    assert said["trial_id"] == row["trial_id"]
    assert said["recorded"]["accuracy_test"] == pytest.approx(said["now"]["accuracy_test"], abs=0.02)
    assert said["recorded"]["memory_peak_bytes"] == said["now"]["memory_peak_bytes"]
    wrong = revstudy("rerun", "nothing", "--store", smoke[1])
    assert wrong.code == 2
    assert "must be the id of a trial" in wrong.err


def test_figures_are_refused_by_name_without_a_browser(revstudy, smoke, tmp_path):
    wrong = revstudy("figures", "--store", smoke[1], "--format", "gif", "-o", tmp_path / "f")
    assert wrong.code == 2
    assert "choose png, svg, pdf" in wrong.err


@pytest.mark.parametrize("verb", ["watch", "serve"])
def test_what_runs_until_interrupted_says_where_and_ends_quietly(smoke, tmp_path, verb):
    store, out = tmp_path / "store", tmp_path / "r.html"
    shutil.copytree(smoke[1], store)
    arguments = {
        "watch": ["report", "--watch", "--every", "0.3", "-o", out],
        "serve": ["serve", "--port", "0", "--json"],
    }[verb]
    process = start(*arguments, "--store", store)
    try:
        if verb == "serve":
            said = "".join(process.stdout.readline() for _ in range(4))
            with urllib.request.urlopen(json.loads(said)["url"], timeout=60) as answer:
                assert b"RevStudy report" in answer.read()
        else:
            assert process.stdout.readline() == f"Report: {out}\n"
            written = out.stat().st_mtime_ns
            trial = next((store / "study=smoke" / "trials").glob("*.parquet"))
            trial.unlink()
            deadline = time.monotonic() + 60
            while out.stat().st_mtime_ns == written and time.monotonic() < deadline:
                time.sleep(0.1)
            assert "2 trials" in out.read_text()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in err
