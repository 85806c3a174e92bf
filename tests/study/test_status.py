"""How far a study is, from rows, leases and the study's own file."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from study.plan.expand import make_plan
from study.status import _study_status, store_status
from study.store.lease import Lease
from study.store.rows import TrialResult, lost_result
from study.store.writer import write_result, write_study

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def row(number: int, outcome: str = "ok", *, ended: timedelta, took_s: float = 60.0, **changes) -> dict:
    """A row of a trial that ended so long before `NOW`."""
    return {
        "trial_id": f"{number:016x}",
        "study": "s",
        "attempt": 0,
        "outcome": outcome,
        "error_class": None,
        "started_at": NOW - ended - timedelta(seconds=took_s),
        "finished_at": NOW - ended,
        "wall_s": took_s,
        "accuracy_val": 0.5,
        "accuracy_test": 0.25,
        "bits_per_byte_val": None,
        "bits_per_byte_test": None,
        **changes,
    }


def lease(number: int, *, epoch: int, began: timedelta) -> Lease:
    return Lease(
        trial_id=f"{number:016x}",
        study="s",
        host="h",
        pid=1,
        started_at=(NOW - began).isoformat(),
        heartbeat_at=NOW.isoformat(),
        epoch=epoch,
        epochs=10,
    )


def test_rate_and_time_left_are_those_of_the_run_that_goes_on():
    minutes = [timedelta(minutes=m) for m in (3, 2, 1)]
    rows = [row(i, ended=ended) for i, ended in enumerate(minutes)]
    rows += [row(10, ended=timedelta(days=2), took_s=3600)]  # of another run, days ago
    found = _study_status("s", 10, rows, [lease(5, epoch=5, began=timedelta(minutes=1))], NOW)
    assert (found.trials, found.ok, found.running, found.left) == (4, 4, 1, 5)
    # Three trials and a half in the four minutes since the first of them began; five and a half are left.
    assert found.rate_per_hour == pytest.approx(60 * 3.5 / 4)
    assert found.time_left_s == pytest.approx(5.5 / 3.5 * 240)
    at_rest = _study_status("s", 10, rows, [], NOW)
    assert (at_rest.left, at_rest.rate_per_hour, at_rest.time_left_s) == (6, None, None)


def test_each_end_is_counted_as_what_it_is():
    hour = timedelta(hours=1)
    rows = [
        row(0, ended=hour, attempt=2),
        row(1, "pruned", ended=hour),
        row(2, "oom", ended=hour, accuracy_val=0.9),
        row(3, "diverged", ended=hour),
        row(4, "failed", ended=hour, error_class="KeyboardInterrupt"),
    ]
    found = _study_status("s", 6, rows, [], NOW)
    counts = (found.ok, found.pruned, found.failed, found.interrupted, found.retried, found.left)
    assert counts == (1, 1, 2, 1, 1, 2)
    assert found.best_accuracy_val == 0.5
    assert _study_status("s", None, rows, [], NOW).left is None


def test_validation_chooses_and_test_is_shown_for_what_it_chose():
    hour = timedelta(hours=1)
    rows = [
        row(0, ended=hour, accuracy_val=0.9, accuracy_test=0.7),
        row(1, ended=hour, accuracy_val=0.8, accuracy_test=0.99),
        row(2, ended=hour, accuracy_val=None, accuracy_test=1.0),
    ]
    found = _study_status("s", 3, rows, [], NOW)
    assert (found.best_accuracy_val, found.best_accuracy_test) == (0.9, 0.7)


def test_a_store_tells_of_trials_that_another_study_trained(make_study, store):
    first, second = (
        make_plan(make_study(name=name, train={"epochs": 1, "batch_size": 64})).trials[0]
        for name in ("one", "two")
    )
    assert first.trial_id == second.trial_id
    write_result(store, TrialResult(trial={**lost_result(first).trial, "outcome": "ok"}))
    for name in ("one", "two"):
        write_study(store, make_study(name=name).to_dict(), [first.trial_id], planned=3)
    found = {status.study: status for status in store_status(str(store)).studies}
    assert {name: (s.trials, s.left) for name, s in found.items()} == {"one": (1, 2), "two": (1, 2)}
    assert store_status(str(store), "two").studies == (found["two"],)
    assert replace(found["one"], study="two") == found["two"]


def test_a_damaged_lease_is_named(make_study, store):
    write_study(store, make_study(name="one").to_dict(), [], planned=3)
    (store / "claims").mkdir()
    damaged = store / "claims" / f"{'0' * 16}.json"
    damaged.write_text("{")
    found = store_status(str(store))
    assert found.running == ()
    assert found.files_left_out == (
        {"file": str(damaged), "reason": "a damaged lease, which counts for nothing"},
    )
