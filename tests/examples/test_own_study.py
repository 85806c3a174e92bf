"""The example of a study of one's own: planned, run, killed, resumed and reported."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / "examples" / "own_study" / "study.yaml"


def revstudy(*arguments, **how):
    command = [sys.executable, "-m", "study.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, **how)


def rows(store, columns):
    done = revstudy("query", f"SELECT {columns} FROM trials ORDER BY trial_id", "--store", store, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_plan_names_the_network_and_predicts_it(tmp_path):
    done = revstudy("plan", FILE, "--store", tmp_path / "store", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["to_run"] == 6
    (search,) = plan["searches"]
    assert search["objectives"] == {"f1_val": "max", "memory_peak_bytes": "min"}
    trial = plan["trials"][0]
    assert trial["settings"]["model"]["options"] == {"channels": 32, "depth": 2}
    assert trial["memory_predicted_bytes"] > trial["memory_activation_predicted_bytes"] > 0


def test_an_objective_that_the_task_has_not_is_refused(tmp_path):
    file = tmp_path / "study.yaml"
    text = FILE.read_text().replace("f1_val", "f2_val").replace("name: own-study", "name: own-study\ncode: .")
    for name in ("nets", "sets", "tasks"):
        (tmp_path / f"{name}.py").write_text((FILE.parent / f"{name}.py").read_text())
    file.write_text(text)
    done = revstudy("plan", file, "--store", tmp_path / "store")
    assert done.returncode == 2
    assert "must be a column, or a metric of the task" in done.stderr
    assert "did you mean 'f1_val'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(900)
def test_it_is_run_killed_resumed_and_reported(tmp_path):
    store = tmp_path / "store"
    command = [sys.executable, "-m", "study.cli", "run", str(FILE), "--store", str(store)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:  # killed when some trials are done and others are not
        if "2/9 trials done" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)
    done = revstudy("run", FILE, "--store", store)
    assert done.returncode == 0, done.stderr
    found = rows(store, "outcome, model, data, task, strategy, accuracy_val, loss_test, metrics_json")
    assert len(found) >= 8, "6 of the grid, and the points of the search that are no others"
    assert {row["outcome"] for row in found} == {"ok"}
    assert {(r["model"], r["data"], r["task"]) for r in found} == {
        ("nets:build", "sets:load", "tasks:Diagnosis")
    }
    assert {row["strategy"] for row in found} == {"store", "checkpoint", "reverse"}
    scores = [json.loads(row["metrics_json"]) for row in found]
    assert all(set(score) == {"f1_train", "f1_val", "f1_test"} for score in scores)
    assert max(score["f1_test"] for score in scores) > 0.85
    report = tmp_path / "own.html"
    done = revstudy("report", "own-study", "--store", store, "--output", report)
    assert done.returncode == 0, done.stderr
    assert "nets:build" in report.read_text()
