"""`run` in processes of its own: a whole study, again, interrupted, and on clusters that do not answer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

from study.store.reader import read_rows
from tests.cli.conftest import finish, start


def test_run_trains_and_says_where_the_results_are(smoke):
    answer, store = smoke
    assert answer.code == 0, answer.err
    said = json.loads(answer.out)
    assert (said["study"], said["trained"], said["left"]) == ("smoke", 3, 0)
    assert said["outcomes"] == {"ok": 3}
    assert len(said["findings"]) == 3
    assert "3 new grid trials" in answer.err
    assert "\n3/3 " in answer.err and answer.err.count(": ok, ") == 3
    for noise in ("Traceback", "ray", "WARNING", "ERROR"):
        assert noise not in answer.err
    assert len(read_rows(store)) == 3


def test_run_again_starts_no_ray(smoke):
    _, store = smoke
    code = (
        "import sys; from study.cli import main as cli\n"
        "sys.argv = ['revstudy', 'run', 'smoke', '--store', sys.argv[1]]\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'ray' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(store)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
    assert f"Results: {store}" in done.stdout


def test_an_interrupt_keeps_what_is_done_and_exits_130(ray_cluster, write_study, store):
    import ray

    study = write_study(
        name="long",
        data={"name": "digits", "train_examples": 256, "test_examples": 100},
        model={"width": 0.25, "depth": 14},
        train={"batch_size": 64},
        space=[{"train.epochs": {"grid": [1, 10_000, 10_001]}}],
    )
    address = ray.get_runtime_context().gcs_address
    process = start("run", study, "--store", store, "--address", address)
    try:
        deadline = time.monotonic() + 180
        while not (list(store.glob("study=long/trials/*")) and list(store.glob("checkpoints/*.pt"))):
            assert process.poll() is None, finish(process)
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        answer = finish(process, timeout=100)
    finally:
        process.kill()  # Ray ends the trials of a driver that is gone; left alone they would go on for hours.
    assert answer.code == 130, answer.err
    assert "Traceback" not in answer.err
    assert "Interrupted. What is done is kept" in answer.out
    by_epochs = {row["epochs"]: row for row in read_rows(store).values()}
    assert by_epochs.pop(1)["outcome"] == "ok"
    assert by_epochs, "what was training is told of"
    for row in by_epochs.values():
        assert (row["outcome"], row["error_class"]) == ("failed", "KeyboardInterrupt")
    furthest = max(by_epochs.values(), key=lambda row: row["epochs_done"])
    assert furthest["epochs_done"] >= 1
    assert furthest["accuracy_val"] is not None
    assert "trials failed" not in answer.out


def test_an_unreachable_cluster_exits_4_in_one_line(revstudy, store):
    answer = revstudy("run", "smoke", "--store", store, "--address", "127.0.0.1:1")
    assert answer.code == 4
    last = answer.err.strip().splitlines()[-1]
    assert last.startswith("revstudy: no Ray cluster answers at '127.0.0.1:1'")
    assert "Traceback" not in answer.err
    assert not list(store.glob("study=*/trials/*"))


def test_a_store_that_cannot_be_written_exits_3_before_anything_starts(revstudy, tmp_path):
    file = tmp_path / "file"
    file.write_text("no folder")
    answer = revstudy("run", "smoke", "--store", file, "--address", "127.0.0.1:1")
    assert answer.code == 3
    assert str(file) in answer.err
    assert "--store" in answer.err
    assert file.read_text() == "no folder"


def test_a_dashboard_that_does_not_answer_exits_4_and_nothing_is_written(revstudy, store, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    answer = revstudy("submit", "smoke", "--store", store, "--address", "http://127.0.0.1:1")
    assert answer.code == 4
    assert answer.err.startswith("revstudy: no dashboard of a Ray cluster answers at 'http://127.0.0.1:1'")
    assert "Traceback" not in answer.err
    assert not store.exists()
