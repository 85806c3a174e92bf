"""A study on a real S3 server that throttles and cuts off: killed, run twice at once, merged beside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from study.store.reader import History, read_rows
from tests.s3_server import ROOT, s3_server

TRIALS = 3
STUDY = {
    "name": "on-s3",
    "data": {"name": "digits", "train_examples": 256, "test_examples": 100},
    "model": {"name": "revnet38", "width": 0.25, "depth": 14},
    "train": {"epochs": 3, "batch_size": 64, "learning_rate": 0.05},
    "seeds": list(range(TRIALS)),
}
RESULTS = ("outcome", "loss_train", "loss_val", "accuracy_val", "accuracy_test", "memory_peak_bytes")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def study_file(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("study") / "on-s3.yaml"
    file.write_text(yaml.safe_dump(STUDY))
    return file


def start(*arguments: str) -> subprocess.Popen:
    """A command of its own session, so that all of it can be killed."""
    return subprocess.Popen(
        [sys.executable, "-m", "study.cli", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def kill(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def ended(process: subprocess.Popen) -> tuple[int, str]:
    try:
        output, _ = process.communicate(timeout=400)
    finally:
        kill(process)
    return process.returncode, output


def rows_of(store: str) -> dict[str, dict[str, object]]:
    return {trial: {name: row[name] for name in RESULTS} for trial, row in read_rows(store).items()}


def test_a_killed_run_two_runs_and_a_merge_leave_every_row_once(study_file, tmp_path):
    calm = str(tmp_path / "calm")
    assert ended(start("run", str(study_file), "--store", calm))[0] == 0
    with s3_server(errors=0.02, seed=5) as store:
        first = start("run", str(study_file), "--store", store)
        end = time.monotonic() + 300
        while not rows_of(store) and first.poll() is None and time.monotonic() < end:
            time.sleep(0.2)
        assert rows_of(store), "no row came into the bucket"
        kill(first)
        both = [start("run", str(study_file), "--store", store) for _ in range(2)]
        merged = ended(start("compact", "--store", store))
        told = [ended(run) for run in both]
        assert merged[0] == 0, merged[1]
        assert [code for code, _ in told] == [0, 0], told
        assert rows_of(store) == rows_of(calm)
        assert len(rows_of(store)) == TRIALS
        assert ended(start("compact", "--store", store))[0] == 0
        assert rows_of(store) == rows_of(calm)
        finals = [row for row in History(store).rows().values() if row["outcome"] == "ok"]
        assert len(finals) == TRIALS
