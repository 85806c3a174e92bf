"""Clusters that answer otherwise than Ray would, tokens, and the exit codes of jobs."""

from __future__ import annotations

import http.server
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from ray.dashboard.modules.job.pydantic_models import JobDetails

from study.cluster.jobs import DEFAULT_ADDRESS, dashboard_url, exit_code
from study.cluster.reach import ClusterError, agree, ask_http, check_cluster, token


@pytest.fixture(autouse=True)
def without_ray(monkeypatch, tmp_path):
    """An environment that says nothing of Ray, and a home without a token."""
    for name in list(os.environ):
        if name.startswith("RAY_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where somebody listens and never answers."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        opened.listen()
        yield opened.getsockname()[1]


def test_who_never_answers_is_given_up_in_seconds(silent):
    begun = time.monotonic()
    with pytest.raises(ClusterError, match="no answer in time"):
        check_cluster(f"127.0.0.1:{silent}")
    with pytest.raises(ClusterError, match="no dashboard of a Ray cluster answers"):
        ask_http(f"http://127.0.0.1:{silent}", timeout_s=0.5)
    assert time.monotonic() - begun < 15


def test_another_web_server_is_no_dashboard():
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ClusterError, match="something else answers"):
            ask_http(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_the_token_is_where_ray_looks_for_it(monkeypatch, tmp_path):
    assert token() is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("home\n")
    assert token() == "home"
    (tmp_path / "named").write_text("named")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "named"))
    assert token() == "named"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "direct")
    assert token() == "direct"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "gone"))
    with pytest.raises(ClusterError, match="RAY_AUTH_TOKEN_PATH names"):
        token()


@pytest.mark.parametrize(
    ("mode", "shown", "wanted", "accepted", "message"),
    [
        (None, None, True, True, "there is none here"),
        (None, "t", True, False, "refuses this user's token"),
        ("disabled", "t", True, True, "RAY_AUTH_MODE=disabled is set"),
        ("token", "t", False, True, "asks for no token"),
    ],
)
def test_who_cannot_agree_on_the_token_is_told_why(monkeypatch, mode, shown, wanted, accepted, message):
    for name, value in (("RAY_AUTH_MODE", mode), ("RAY_AUTH_TOKEN", shown)):
        if value:
            monkeypatch.setenv(name, value)
    with pytest.raises(ClusterError, match=message) as raised:
        agree("10.0.0.1:6379", wanted=wanted, accepted=lambda _: accepted)
    assert raised.value.exit_code == 4


def test_an_open_cluster_is_joined_with_a_warning(capsys):
    agree("10.0.0.1:6379", wanted=False, accepted=lambda _: True)
    assert "whoever reaches it can run code" in capsys.readouterr().err
    assert "RAY_AUTH_MODE" not in os.environ


def test_the_dashboard_is_the_one_given_or_the_environment_s_or_this_machine_s(monkeypatch):
    assert dashboard_url(None) == DEFAULT_ADDRESS
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert dashboard_url(None) == DEFAULT_ADDRESS, "that is the control service, not the dashboard"
    monkeypatch.setenv("RAY_ADDRESS", "http://10.0.0.2:8265")
    assert dashboard_url(None) == "http://10.0.0.2:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://cluster/")
    assert dashboard_url(None) == "https://cluster"
    assert dashboard_url("head:8265") == "http://head:8265"
    for bad in ("ray://head:10001", "http://"):
        with pytest.raises(ClusterError, match="not that of a dashboard"):
            dashboard_url(bad)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 1, 1),
        ("FAILED", 3, 3),
        ("FAILED", -9, 137),
        ("STOPPED", None, 130),
        ("SUCCEEDED", None, 0),
    ],
)
def test_the_driver_s_exit_code_is_passed_on(status, code, expected):
    details = JobDetails(type="SUBMISSION", status=status, entrypoint="run", driver_exit_code=code)
    assert exit_code(details) == expected


def test_a_driver_that_never_ran_is_a_fault_of_the_cluster():
    details = JobDetails(
        type="SUBMISSION", status="FAILED", entrypoint="run", submission_id="j-1", message="no disk"
    )
    with pytest.raises(ClusterError, match="j-1 failed before its driver ended: no disk"):
        exit_code(details)
