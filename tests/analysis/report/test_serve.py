"""The server, asked over a real socket."""

import asyncio
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from threading import Thread

import pytest
from aiohttp import web

from analysis.errors import AnalysisError, StoreError
from analysis.queries import NAMED
from analysis.report.serve import MOST_ROWS, Site, serve


class Served:
    """A site on a port of its own, in a thread."""

    def __init__(self, store, **options):
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = self._call(self._start(Site(store, **options)))

    def _call(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _start(self, site):
        self._runner = web.AppRunner(site.application())
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self._runner.addresses[0][1]

    def ask(self, path, *, sql=None, data=None, **headers):
        body = json.dumps({"sql": sql}).encode() if sql is not None else data
        if body is not None:
            headers.setdefault("Content_Type", "application/json")
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=body,
            headers={k.replace("_", "-"): v for k, v in headers.items()},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def query(self, sql):
        status, text = self.ask("/query", sql=sql)
        return status, json.loads(text)

    def close(self):
        self._call(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


@pytest.fixture(scope="module")
def served(demo_store) -> Iterator[Served]:
    site = Served(demo_store, time_limit_s=2.0)
    yield site
    site.close()


def test_the_report_is_served_with_a_way_to_the_console(served):
    status, page = served.ask("/")
    assert status == 200
    assert "92 trials" in page
    assert '<a href="/sql">SQL</a>' in page
    status, console = served.ask("/sql")
    assert status == 200
    assert all(f'data-query="{name}"' in console for name in NAMED)
    assert "memory_activation_bytes" in console


def test_a_query_is_answered_as_text(served):
    status, answer = served.query("select trial_id, accuracy_test from trials order by 1 limit 2")
    assert status == 200
    assert answer["columns"] == ["trial_id", "accuracy_test"]
    assert len(answer["rows"]) == 2 and not answer["more"]
    assert served.query("pareto")[1]["columns"][0] == "trial_id"


def test_a_large_answer_is_cut_and_says_so(served):
    status, answer = served.query("select * from range(1000000000) order by 1")
    if status == 200:
        assert len(answer["rows"]) == MOST_ROWS and answer["more"]
        assert answer["rows"][0] == ["0"]
    else:
        assert "longer than 2 s" in answer["error"]
    status, answer = served.query("select * from range(5000)")
    assert len(answer["rows"]) == MOST_ROWS and answer["more"]


@pytest.mark.parametrize(
    "sql",
    [
        "copy trials to 'x'",
        "attach 'y'",
        "select * from read_csv('any.csv')",
        "select * from 'any.parquet'",
        "drop table trials",
        "set enable_external_access=true",
        "install httpfs",
        "select 1; select 2",
        "selct 1",
        "paretto",
    ],
)
def test_what_is_not_a_read_only_statement_is_refused(served, sql):
    status, answer = served.query(sql)
    assert status == 400
    assert answer["error"]
    assert "Traceback" not in answer["error"]


def test_a_query_without_end_is_ended_and_the_next_one_answered(served):
    status, answer = served.query("select sum(a.range * b.range) from range(10000000) a, range(10000000) b")
    assert status == 400
    assert "took longer than 2 s" in answer["error"]
    assert served.query("select 1 as one")[1]["rows"] == [["1"]]


def test_other_hosts_other_origins_and_other_types_are_refused(served):
    assert served.ask("/", Host="evil.example")[0] == 403
    assert served.ask("/", Host="localhost")[0] == 200
    assert served.ask("/query", sql="select 1", Origin="http://evil.example")[0] == 403
    assert served.ask("/query", sql="select 1", Origin=f"http://127.0.0.1:{served.port}")[0] == 200
    assert served.ask("/query", sql="select 1", Content_Type="text/plain")[0] == 415
    assert served.ask("/query", data=b"{")[0] == 400
    assert served.ask("/query", data=b'{"sql": 1}')[0] == 400
    assert served.ask("/query", data=b"[]")[0] == 400


def test_new_trials_are_served_without_a_restart(tmp_path, new_trial, write):
    write(tmp_path, [new_trial()])
    site = Served(tmp_path)
    try:
        assert "1 trial, 1 ended ok" in site.ask("/")[1]
        write(tmp_path, [new_trial(seed=1)])
        assert site.query("select count(*) from trials")[1]["rows"] == [["2"]]
        assert "2 trials, 2 ended ok" in site.ask("/")[1]
    finally:
        site.close()


def test_a_port_in_use_and_a_missing_store_are_told(demo_store, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(AnalysisError, match="choose another --port"):
            serve(demo_store, port=taken.getsockname()[1])
    with pytest.raises(StoreError):
        serve(tmp_path / "nowhere")
