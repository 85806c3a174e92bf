"""What the driver makes of a trial whose process died: a row, and another try or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.errors import StoreError
from study.executors.job import Job
from study.executors.lost import RETRIES, LostTrials
from study.outcomes import ProcessLostError
from study.run import plan_run
from study.store.reader import read_rows
from study.store.rows import lost_result
from study.store.writer import write_result
from study.train.trial import train_trial

MONITOR = (
    "2 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2) "
    "was 4.62GB used / 23.54GB limit (0.196353)\nTop 10 memory users: ..."
)


class ActorDiedError(Exception):
    """Named as Ray's, which is known by its name."""


@pytest.fixture
def job(make_study, store) -> Job:
    (trial,) = plan_run(make_study(), store).trials
    return Job(trial=trial, store=str(store))


def row_of(job: Job) -> dict:
    return read_rows(job.store)[job.trial.trial_id]


def test_a_lost_process_is_a_failure_that_is_tried_again(job):
    verdict = LostTrials()(job, ActorDiedError("The actor died.\nits address is 192.0.2.2"))
    assert (verdict.outcome, verdict.retry) == ("failed", True)
    row = row_of(job)
    assert (row["error_class"], row["error_message"]) == ("ActorDiedError", "The actor died")


def test_a_mistake_is_not_tried_again(job):
    verdict = LostTrials()(job, ValueError("no"))
    assert (verdict.outcome, verdict.retry) == ("failed", False)


def test_a_process_that_was_ended_for_lack_of_memory_is_oom_and_not_tried_again(job):
    verdict = LostTrials()(job, ProcessLostError(MONITOR))
    assert (verdict.outcome, verdict.retry) == ("oom", False)
    message = row_of(job)["error_message"]
    assert message == "2 worker(s) were killed due to the node running low on memory"


def test_a_process_that_was_ended_before_its_trial_began_is_tried_again(job):
    verdict = LostTrials()(job, ProcessLostError(MONITOR), began=False)
    assert (verdict.outcome, verdict.retry) == ("failed", True)


def test_the_kernel_s_count_of_kills_tells_oom_from_other_deaths(job, monkeypatch):
    counts = iter([3, 4])
    monkeypatch.setattr("study.executors.lost.oom_kills", lambda: next(counts))
    verdict = LostTrials()(job, ActorDiedError("died"))
    assert (verdict.outcome, verdict.retry) == ("oom", False)


def test_tries_are_limited_unless_they_get_further(job):
    lost = LostTrials()
    verdicts = []
    for attempt in range(RETRIES + 1):
        verdicts.append(lost(Job(trial=job.trial, store=job.store, attempt=attempt), ActorDiedError("died")))
    assert [verdict.retry for verdict in verdicts] == [True] * RETRIES + [False]
    lost = LostTrials()
    for attempt in range(10, 20):
        again = Job(trial=job.trial, store=job.store, attempt=attempt)
        assert lost(again, ActorDiedError("died"), epoch=attempt).retry


def test_a_row_that_the_process_managed_to_write_stands(job):
    write_result(job.store, train_trial(job.trial, device="cpu"))
    verdict = LostTrials()(job, ActorDiedError("died"))
    assert (verdict.outcome, verdict.retry) == ("ok", False)
    assert row_of(job)["outcome"] == "ok"


def test_a_damaged_row_in_the_place_of_the_lost_one_is_left_alone(job):
    write_result(job.store, lost_result(job.trial))
    (file,) = Path(job.store).glob("study=*/trials/*.parquet")
    file.write_bytes(file.read_bytes()[:100])
    verdict = LostTrials()(job, ActorDiedError("died"))
    assert (verdict.outcome, verdict.retry) == ("failed", True)
    assert row_of(job)["attempt"] == 1
    assert file.stat().st_size == 100
    file.unlink()
    lost = LostTrials()
    lost.left = [job]
    write_result(job.store, lost_result(job.trial))
    file.write_bytes(b"")
    lost.interrupted(KeyboardInterrupt("ended"))
    assert file.read_bytes() == b""


def test_a_store_that_takes_no_row_ends_the_run(job):
    full = StoreError(value="here", rule="the store could not be written (No space left on device)")
    with pytest.raises(StoreError, match="No space left"):
        LostTrials()(job, full)


def test_an_actor_that_ray_ended_for_memory_is_a_lost_trial_and_not_the_end_of_the_run():
    from types import SimpleNamespace

    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.exceptions import OutOfMemoryError, RayActorError

    from study.ray_internals import mend_tune

    told = []
    actor = SimpleNamespace(actor_id=7, _on_error=lambda actor, error: told.append(error))
    task = SimpleNamespace(_tracked_actor=actor, _on_error=None)
    manager = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
    mend_tune()
    mend_tune()
    # By name, as Ray calls it.
    RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=OutOfMemoryError(MONITOR))
    (error,) = told
    assert isinstance(error, RayActorError)
    assert "running low on memory" in str(error)
    assert manager._failed_actor_ids == {7}
    with pytest.raises(RuntimeError, match="unexpected exception"):
        RayActorManager._actor_task_failed(manager, task, KeyError("another"))
