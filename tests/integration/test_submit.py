"""A study as a job of a cluster that asks for a token: sent, followed, and its driver's exit code."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from study.store.reader import read_rows
from tests.cli.conftest import finish, start, write_study

__all__ = ["write_study"]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()


@pytest.fixture
def dashboard(tmp_path_factory, monkeypatch):
    """The URL of the dashboard of a cluster of its own, as `ray start --head` makes one."""
    token = tmp_path_factory.mktemp("token") / "auth_token"
    token.write_text("3f" * 32)
    token.chmod(0o600)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    # Short, for the sockets of Ray in it.
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/rs-XXXX"], text=True).strip())
    port, board, agent = free_ports(3)
    head = subprocess.Popen(
        [
            *(Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--num-cpus=2"),
            *(f"--port={port}", f"--dashboard-port={board}", f"--dashboard-agent-listen-port={agent}"),
            *(f"--temp-dir={folder}", "--min-worker-port=0", "--max-worker-port=0"),
        ],
        env={**os.environ, "RAY_AUTH_MODE": "token"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 90
        while not answers(board):
            assert head.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        yield f"http://127.0.0.1:{board}"
    finally:
        head.terminate()
        head.wait(60)
        subprocess.run(["rm", "-rf", folder], check=False)


def answers(port: int) -> bool:
    with closing(socket.socket()) as opened:
        return opened.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.timeout(600)
def test_a_study_with_a_trial_that_fails_ends_with_its_rows_and_exit_code_1(dashboard, write_study, store):
    study = write_study(
        name="sent",
        data={"name": "digits", "train_examples": 256, "test_examples": 100},
        model={"width": 0.25, "depth": 14},
        train={"epochs": 2, "batch_size": 64},
        space={"train.learning_rate": {"grid": [0.02, 1e30]}},
    )
    command = ("submit", study, "--store", store, "--address", dashboard)
    answer = finish(start(*command), timeout=300)
    assert answer.code == 1, answer.err
    assert sorted(row["outcome"] for row in read_rows(store).values()) == ["diverged", "ok"]
    assert "2 trials trained" in answer.out

    again = finish(start(*command, "--no-wait"), timeout=120)
    assert again.code == 0, again.err
    first = answer.err.split()[0]
    assert again.out.strip() == first.removesuffix("-1") + "-2", "what has ended is sent anew: run is resume"
    stopped = finish(start(*command, "--stop"), timeout=120)
    assert stopped.code == 0, stopped.err
