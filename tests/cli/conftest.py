"""The command line, in this process or in one of its own, and a store with trials."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def revstudy(capfd, monkeypatch) -> Callable[..., Answer]:
    """Run a command in this process, which has imported the heavy packages already."""

    def run(*arguments: object) -> Answer:
        from study.cli.main import main

        monkeypatch.setattr(sys, "argv", ["revstudy", *map(str, arguments)])
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "200")
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        said = capfd.readouterr()
        return Answer(code=code, out=said.out, err=said.err)

    return run


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start a command in a process of its own, which Ctrl-C reaches even from a background job."""
    return subprocess.Popen(
        [sys.executable, "-m", "study.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process: subprocess.Popen[str], timeout: float = 240) -> Answer:
    """Wait for a command."""
    out, err = process.communicate(timeout=timeout)
    return Answer(code=process.returncode, out=out, err=err)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory) -> tuple[Answer, Path]:
    """The built-in study `smoke`, run by a process of its own with a Ray of its own, and its store."""
    store = tmp_path_factory.mktemp("smoke") / "store"
    return finish(start("run", "smoke", "--store", store, "--json")), store


@pytest.fixture
def write_study(tmp_path) -> Callable[..., Path]:
    """Write a study file from sections, or as the text given."""

    def write(text: str | None = None, **sections: object) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(text if text is not None else yaml.safe_dump(sections))
        return path

    return write
