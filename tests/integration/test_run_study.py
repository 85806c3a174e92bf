"""Studies run for real on Ray: each trial lands once, failures are rows, and a second run trains nothing."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from study.executors.progress import Progress
from study.run import plan_run, run_study
from study.store.leases import Hold, acquire
from study.store.reader import read_rows
from study.store.writer import write_result
from study.train.trial import train_trial

pytestmark = pytest.mark.usefixtures("ray_cluster")


def files(store: Path, table: str = "trials") -> list[Path]:
    return sorted(store.glob(f"study=*/{table}/*.parquet"))


class Recorder(Progress):
    """Keeps the order of what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs_seen: dict[str, list[int]] = {}

    def epoch(self, trial_id: str, *, epoch: int) -> None:
        super().epoch(trial_id, epoch=epoch)
        self.epochs_seen.setdefault(trial_id, []).append(epoch)


def test_each_trial_lands_once_however_it_ends_and_a_second_run_trains_nothing(make_study, store):
    space = {
        "train.learning_rate": {"grid": [0.05, 1e30]},  # the second one diverges
        "memory.strategy": {"grid": ["store", "reverse"]},
    }
    study = make_study(space=space)
    progress = Recorder()
    planned = plan_run(study, store).trials
    first = run_study(study, store, progress=progress)
    assert first.outcomes == {"ok": 2, "diverged": 2}
    assert (first.exit_code, first.failures, first.left, first.already_done) == (1, 2, 0, 0)
    assert {file.name for file in files(store)} == {f"{trial.trial_id}-a0.parquet" for trial in planned}
    rows = read_rows(store)
    for trial in planned:
        row = rows[trial.trial_id]
        assert row["memory_predicted_bytes"] == row["memory_peak_bytes"]
        assert (row["cpu_threads"], row["concurrent_trials"]) == (1, 2)
        assert row["ray_version"] is not None
        if trial.settings.train.learning_rate > 1:
            assert (row["outcome"], row["error_class"]) == ("diverged", "DivergedError")
            continue
        assert row["outcome"] == "ok"
        assert progress.epochs_seen[trial.trial_id] == [1, 2]
        epochs = pq.read_table(store / "study=small" / "epochs" / f"{trial.trial_id}-a0.parquet")
        assert epochs["epoch"].to_pylist() == [1, 2]
    before = {file: file.stat().st_mtime_ns for file in files(store)}
    second = run_study(study, store)
    assert (second.trained, second.already_done, second.exit_code) == (0, 4, 1)
    other = run_study(make_study(name="other", memory={"strategy": "store"}), store)
    assert (other.trained, other.already_done, other.exit_code) == (0, 1, 0)
    assert {file: file.stat().st_mtime_ns for file in files(store)} == before
    assert not list(store.rglob(".*"))


def test_a_relative_store_is_meant_from_where_the_command_was_given(make_study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    summary = run_study(make_study(train={"epochs": 1}), "results")
    assert summary.outcomes == {"ok": 1}
    assert len(files(tmp_path / "results")) == 1


class KillsOnFirstEpoch(Recorder):
    """Ends the process of the running trial as the kernel would, in the middle of training."""

    def __init__(self) -> None:
        super().__init__()
        self.killed: list[int] = []

    def epoch(self, trial_id: str, *, epoch: int) -> None:
        super().epoch(trial_id, epoch=epoch)
        if not self.killed:
            import ray
            from ray.util.state import list_actors

            ours = ray.get_runtime_context().gcs_address  # other Rays may run on this machine
            alive = list_actors(ours, filters=[("state", "=", "ALIVE")], raise_on_missing_output=False)
            self.killed = [int(actor.pid) for actor in alive]
            for pid in self.killed:
                os.kill(pid, signal.SIGKILL)


def test_a_killed_worker_is_a_row_and_its_trial_goes_on_from_the_last_epoch(make_study, store):
    study = make_study(train={"epochs": 20, "batch_size": 64})
    (planned,) = plan_run(study, store).trials
    progress = KillsOnFirstEpoch()
    summary = run_study(study, store, progress=progress)
    assert len(progress.killed) == 1
    assert (summary.outcomes, summary.exit_code) == ({"ok": 1}, 0)
    (row,) = read_rows(store).values()
    assert (row["outcome"], row["attempt"], row["epochs_done"]) == ("ok", 1, 20)
    lost, _ = (pq.read_table(file).to_pylist()[0] for file in files(store))
    assert (lost["outcome"], lost["error_class"], lost["attempt"]) == ("failed", "ActorDiedError", 0)
    assert "died" in lost["error_message"]
    assert "pid" not in lost["error_message"]
    assert (lost["model"], lost["depth"], lost["epochs"]) == ("revnet38", 14, 20)
    assert 1 <= lost["epochs_done"] < 20
    curve = pq.read_table(store / "study=small" / "epochs" / f"{planned.trial_id}-a0.parquet").to_pylist()
    assert [row["epoch"] for row in curve] == list(range(1, lost["epochs_done"] + 1))
    assert lost["accuracy_val"] == curve[-1]["accuracy_val"]
    assert lost["memory_peak_bytes"] == row["memory_peak_bytes"]
    assert progress.epochs_seen[planned.trial_id] == list(range(1, 21)), "an epoch was trained again"
    assert not list(store.glob("checkpoints/*")) + list(store.glob("claims/*"))


class BreaksAfterThreeEpochs(Progress):
    """A failure inside Tune's loop, as when Ray dies."""

    def epoch(self, trial_id: str, *, epoch: int) -> None:
        super().epoch(trial_id, epoch=epoch)
        if epoch == 3:
            raise OSError("Tune gives up")


def test_what_trains_when_tune_gives_up_is_unfinished_and_not_pruned(make_study, store):
    study = make_study(train={"epochs": 20, "batch_size": 64}, seeds=[0, 1])
    with pytest.raises(Exception, match="Tune gives up"):
        run_study(study, store, progress=BreaksAfterThreeEpochs())
    assert read_rows(store) == {}
    gc.collect()  # the exception held Tune, and Tune the processes of its trials
    assert run_study(study, store).exit_code == 0
    assert {(row["outcome"], row["epochs_done"]) for row in read_rows(store).values()} == {("ok", 20)}


def test_what_another_run_trains_is_left_to_it(make_study, store):
    study = make_study(train={"epochs": 1, "batch_size": 64}, seeds=[0, 1])
    theirs, ours = plan_run(study, store).trials
    hold = acquire(store, theirs.trial_id, run="another")
    assert isinstance(hold, Hold)
    first = run_study(study, store)
    assert (first.outcomes, first.left, first.elsewhere) == ({"ok": 1}, 1, 1)
    assert read_rows(store).keys() == {ours.trial_id}
    hold.release()
    second = run_study(study, store)
    assert (second.outcomes, second.already_done, second.elsewhere) == ({"ok": 1}, 1, 0)
    assert len(files(store)) == 2


def test_a_trial_that_another_run_finished_meanwhile_is_not_trained_again(make_study, store):
    study = make_study(train={"epochs": 1, "batch_size": 64})
    (trial,) = plan_run(study, store).trials
    result = train_trial(trial, device="cpu")

    def finish_it(plan):
        write_result(store, result)

    summary = run_study(study, store, on_plan=finish_it)
    assert (summary.outcomes, summary.already_done, summary.left) == ({}, 1, 0)
    assert len(files(store)) == 1


def test_the_budget_of_time_ends_trials_and_leaves_the_rest_unrun(make_study, store):
    study = make_study(train={"epochs": 10_000, "batch_size": 64}, seeds=[0, 1, 2, 3], budget={"time_s": 8})
    summary = run_study(study, store)
    assert set(summary.outcomes) <= {"timeout"}
    assert summary.outcomes.get("timeout", 0) + summary.left == 4
    assert summary.left >= 2
    assert all(row["error_class"] == "TimeUpError" for row in read_rows(store).values())


@pytest.mark.parametrize("method", ["median", "asha"])
def test_pruning_writes_rows_of_the_trials_it_stops(make_study, store, method):
    study = make_study(
        train={"epochs": 8, "batch_size": 64},
        search={
            "method": "optuna",
            "sampler": "random",
            "trials": 6,
            "space": {"train.learning_rate": {"choice": [0.1, 0.05, 1e-9, 2e-9, 3e-9, 4e-9]}},
            "pruning": {"method": method, "startup_trials": 1, "warmup_epochs": 2},
        },
    )
    progress = Progress()
    summary = run_study(study, store, progress=progress)
    assert summary.trained == 6
    assert summary.outcomes.get("pruned", 0) >= 1
    assert summary.exit_code == 0
    rows = read_rows(store)
    for trial_id, outcome in progress.ended.items():
        assert rows[trial_id]["outcome"] == outcome
    pruned = [row for row in rows.values() if row["outcome"] == "pruned"]
    assert all(2 <= row["epochs_done"] < 8 for row in pruned)


class LosesTheStore(Progress):
    """The store, or one row of it, disappears once the first trial has ended."""

    def __init__(self, store: Path, *, wholly: bool) -> None:
        super().__init__()
        self._store, self._wholly = store, wholly
        self.lost = ""

    def finished(self, trial_id: str, outcome: str, **known: Any) -> None:
        super().finished(trial_id, outcome, **known)
        if not self.lost:
            self.lost = trial_id
            if self._wholly:
                shutil.rmtree(self._store)
            else:
                (self._store / "study=small" / "trials" / f"{trial_id}-a0.parquet").unlink()


@pytest.mark.parametrize("wholly", [True, False], ids=["the folder", "one row"])
def test_a_store_that_loses_rows_during_a_run_is_said_by_trial(make_study, store, wholly):
    earlier = make_study(name="earlier", train={"epochs": 1, "batch_size": 64}, seeds=[7])
    run_study(earlier, store)
    (before,) = read_rows(store)
    study = make_study(train={"epochs": 1, "batch_size": 64}, seeds=[0, 1, 2])
    progress = LosesTheStore(store, wholly=wholly)
    summary = run_study(study, store, progress=progress)
    assert summary.exit_code == 3
    assert summary.missing[progress.lost] == "ok"
    assert (before in summary.missing) == wholly
    again = run_study(study, store)
    assert (again.exit_code, again.missing) == (0, {})


def test_a_request_to_end_while_ray_starts_is_an_interrupt(make_study, store, monkeypatch):
    def ray_s_own_handler(*arguments, **how):
        raise SystemExit(signal.SIGTERM)

    monkeypatch.setattr("study.cluster.session.ray_session", ray_s_own_handler)
    assert run_study(make_study(), store).exit_code == 130
