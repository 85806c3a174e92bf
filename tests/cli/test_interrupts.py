"""Ctrl-C and time limits: a command that is told to end does so at once, whatever it is doing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analysis.store.store import open_store
from tests.analysis.conftest import demo_trials, write_trials
from tests.cli.conftest import Answer, finish, start

ENDLESS = "select sum(a.range * b.range) from range(10000000) a, range(10000000) b"
TABLES = ("trials", "epochs", "blocks")


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    return write_trials(tmp_path_factory.mktemp("interrupts") / "store", demo_trials(seeds=1))


def rows_of(store: Path) -> dict[str, str]:
    """The rows of every table, as text, in which NaN equals NaN."""
    opened = open_store(store)
    return {name: str(opened.table(name).to_pylist()) for name in TABLES}


def wait_for(process: subprocess.Popen[str], library: str) -> None:
    """Wait until a process has loaded a library."""
    while process.poll() is None and library not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.02)


def wait_for_start(process: subprocess.Popen[str]) -> None:
    """Wait until Python has begun to run the command: it holds a pipe beside its three streams."""
    while process.poll() is None:
        links = [path.readlink() for path in Path(f"/proc/{process.pid}/fd").iterdir() if path.is_symlink()]
        if sum(str(link).startswith("pipe:") for link in links) >= 4:
            return
        time.sleep(0.005)


def interrupt(process: subprocess.Popen[str]) -> tuple[Answer, float]:
    """Press Ctrl-C once, and time the end."""
    process.send_signal(signal.SIGINT)
    begun = time.perf_counter()
    try:
        return finish(process, timeout=20), time.perf_counter() - begun
    finally:
        process.kill()


def test_a_query_deep_in_the_database_ends_within_a_second(filled):
    process = start("query", ENDLESS, "--store", filled)
    wait_for(process, "_duckdb")
    time.sleep(2)
    answer, took = interrupt(process)
    assert (answer.code, answer.out, answer.err) == (130, "", "")
    assert took < 1


@pytest.mark.parametrize(
    ("verb", "after"), [("query", 0.0), ("report", 0.3), ("claims", 0.6), ("compare", 0.9), ("compact", 0.1)]
)
def test_a_command_ends_at_any_moment_without_a_traceback(filled, tmp_path, verb, after):
    arguments = {"query": ["pareto"], "report": ["-o", tmp_path / "r.html"], "compare": ["demo", "demo"]}
    process = start(verb, *arguments.get(verb, []), "--store", filled)
    wait_for_start(process)
    time.sleep(after)
    answer, took = interrupt(process)
    # It was quicker if it ends with 0, or by the signal itself (130 in a shell) as Python shuts down.
    assert answer.code == 130 or (answer.code in (0, -signal.SIGINT) and answer.out), answer.err
    assert "Traceback" not in answer.err
    assert "Exception ignored" not in answer.err
    assert took < 1
    assert not list(tmp_path.glob(".*"))


def test_an_interrupted_merge_loses_nothing(tmp_path):
    store = write_trials(tmp_path / "store", demo_trials(seeds=2))
    whole = rows_of(store)
    codes = []
    for moment in (0.0, 0.1, 0.2, 0.4, 0.8):
        process = start("compact", "--store", store)
        wait_for(process, "_parquet")
        time.sleep(moment)
        codes.append(interrupt(process)[0].code)
        assert codes[-1] in (0, 130, -signal.SIGINT)
        assert rows_of(store) == whole, moment
    assert 130 in codes
    assert finish(start("compact", "--store", store)).code == 0
    assert rows_of(store) == whole


def test_a_time_limit_ends_a_query_and_says_so(filled):
    answer = finish(start("query", ENDLESS, "--store", filled, "--timeout", 1), timeout=60)
    assert answer.code == 124
    assert answer.out == ""
    assert answer.err.startswith("revstudy: ")
    assert "longer than the 1 s of --timeout" in answer.err
    assert finish(start("query", "select 1 as x", "--store", filled, "--timeout", 60)).code == 0


def test_a_memory_limit_ends_a_query_and_says_so(filled):
    small = ("query", "select * from range(200000)", "--store", filled, "--memory-gb", 0.05)
    answer = finish(start(*small))
    assert (answer.code, answer.out, "--format parquet" in answer.err) == (2, "", True)
    command = [sys.executable, "-m", "study.cli", *map(str, small), "--format", "parquet"]
    assert subprocess.run(command, capture_output=True, check=True).stdout.startswith(b"PAR1")
    for sql in ("select * from range(50000000) order by hash(range)", "select * from range(50000000)"):
        answer = finish(start("query", sql, "--store", filled, "--memory-gb", 0.05, "--format", "parquet"))
        assert (answer.code, answer.out) == (2, "")
        assert "a larger --memory-gb" in answer.err
        assert "Traceback" not in answer.err
