"""The server, asked over a real socket."""

import asyncio
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from threading import Thread

import pytest
from aiohttp import web

from analysis.errors import AnalysisError, StoreError
from analysis.named_queries import NAMED
from analysis.report.serve import MOST_ROWS, Site, serve

ENDLESS = "select sum(a.range * b.range) from range(10000000) a, range(10000000) b"


class Served:
    """A site on a port of its own, in a thread."""

    def __init__(self, store, *, token=None, **options):
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port = self._call(self._start(Site(store, token=token, **options)))

    def _call(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _start(self, site):
        self.site = site
        self._runner = site.runner()
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
    status, answer = served.query(ENDLESS)
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


@pytest.mark.parametrize(
    ("body", "status", "rule"),
    [
        (b"", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b'{"sql": ' + b"9" * 5_000 + b"}", 400, "not JSON"),
        (b'{"sql": "\xff\xfe"}', 400, "not text in UTF-8"),
        (b'"select 1"', 400, "an object with one statement"),
        (b"null", 400, "an object with one statement"),
        (b'{"sql": ["select 1"]}', 400, "an object with one statement"),
        (b'{"SQL": "select 1"}', 400, "an object with one statement"),
        (b'{"sql": "select \'\\ud800\'"}', 400, "surrogate"),
        (b'{"sql": "select \\u0000"}', 400, ""),
        (b'{"sql": "' + b"x" * 150_000 + b'"}', 413, "100,000 characters"),
        (b'{"sql": "' + b"x" * 3_000_000 + b'"}', 413, "200,000 bytes"),
    ],
)
def test_an_odd_request_is_answered_with_the_rule(served, caplog, body, status, rule):
    got, text = served.ask("/query", data=body)
    assert (got, rule in json.loads(text)["error"]) == (status, True)
    got, _ = served.ask("/query", data=body, Content_Type="application/json; charset=klingon")
    assert got == status
    assert "Traceback" not in text + caplog.text


@pytest.mark.parametrize(
    "value",
    [
        *("'nan'::double", "interval 40 months", "date '200000-01-01'", "9::hugeint * 1e30::hugeint"),
        *("map {1: 'a'}", "union_value(a := 1)", "uuid()", "'\\xff'::blob", "'101'::bit", "time '24:00:00'"),
        *("[1, null]", "{'a': [date '0001-01-01 (BC)']}", "timestamptz 'infinity'", "1.5::decimal(38, 20)"),
    ],
)
def test_values_of_every_type_are_answered_or_refused_with_a_reason(served, value):
    status, answer = served.query(f"select {value} as x")
    assert status in (200, 400)
    assert answer.get("rows") or answer["error"]


def raw(served, text: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=30)
    connection.sendall(text)
    return connection


def post(served, sql: str) -> bytes:
    body = json.dumps({"sql": sql}).encode()
    head = f"POST /query HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nContent-Type: application/json\r\n"
    return head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_a_browser_that_leaves_ends_its_query_and_leaves_no_traceback(demo_store, caplog):
    served = Served(demo_store, time_limit_s=600)
    try:
        connections = [raw(served, post(served, ENDLESS)) for _ in range(3)]
        connections.append(raw(served, post(served, ENDLESS)[:-20]))  # half a request
        connections.append(raw(served, b"\x16\x03\x01 what is this\r\n\r\n"))
        begun = time.monotonic()
        while len(served.site._running) < 3 and time.monotonic() < begun + 30:
            time.sleep(0.01)
        time.sleep(0.5)
        for connection in connections:
            connection.close()
        while served.site._running and time.monotonic() < begun + 60:
            time.sleep(0.01)
        assert not served.site._running
        assert served.query("select 1 as one")[1]["rows"] == [["1"]]
        assert "Traceback" not in caplog.text
    finally:
        served.close()


def test_a_long_query_holds_up_neither_the_page_nor_others(demo_store):
    served = Served(demo_store, time_limit_s=600)
    try:
        served.ask("/")
        long = raw(served, post(served, ENDLESS))
        while not served.site._running:
            time.sleep(0.01)
        assert served.query("select count(*) from trials")[1]["rows"] == [["92"]]
        assert "92 trials" in served.ask("/")[1]
        assert served.site._running
        long.close()
    finally:
        served.close()


def test_the_memory_of_queries_and_answers_is_limited(demo_store):
    served = Served(demo_store, time_limit_s=60, memory_bytes=100_000_000)
    try:
        status, answer = served.query(
            "select * from range(50000000) order by hash(range) desc limit 40000000"
        )
        assert (status, "--memory-gb" in answer["error"]) == (400, True)
        status, answer = served.query("select repeat('x', 30000000) from range(3)")
        assert (status, "20 MB" in answer["error"]) == (400, True)
    finally:
        served.close()


def test_who_does_not_know_the_token_reads_nothing(demo_store):
    served = Served(demo_store, token="s3cret-ü")
    try:
        for path, ask in (("/", {}), ("/sql", {}), ("/query", {"sql": "select 1"}), ("/nowhere", {})):
            for known in ("", "?token=", "?token=s3cret", "?token=%FF"):
                status, text = served.ask(path + known, **ask)
                assert status == 401
                assert "revstudy serve" in json.loads(text)["error"]
        assert served.ask("/", Cookie=f"revstudy-{served.port}=wrong")[0] == 401
        assert served.ask("/query", sql="select 1", Authorization="Bearer wrong")[0] == 401
        assert served.ask("/?token=s3cret-%C3%BC", Host="evil.example")[0] == 403
    finally:
        served.close()


def test_the_token_opens_every_page_and_becomes_a_cookie(demo_store):
    served = Served(demo_store, token="s3cret")
    try:
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        page = f"http://127.0.0.1:{served.port}"
        with browser.open(f"{page}/sql?token=s3cret") as answer:
            cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        with browser.open(f"{page}/") as answer:
            assert b"92 trials" in answer.read()
        assert served.ask("/query", sql="select 1", Authorization="Bearer s3cret")[0] == 200
        assert served.ask("/query?token=s3cret", sql="select 1")[0] == 200
    finally:
        served.close()


def test_a_port_in_use_and_a_missing_store_are_told(demo_store, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(AnalysisError, match="choose another --port"):
            serve(demo_store, port=taken.getsockname()[1])
    with pytest.raises(StoreError):
        serve(tmp_path / "nowhere")
