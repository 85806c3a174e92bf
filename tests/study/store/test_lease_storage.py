"""What every place that keeps leases must do: a folder, and an S3 server that throttles and cuts off."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from study.errors import StoreError
from study.store import leases
from study.store.files import create_file, file_exists, read_file, remove_file, write_file
from study.store.lease import Lease
from study.store.leases import Hold, acquire, damaged_leases, read_leases, remove_dead
from study.store.reader import read_rows
from study.store.rows import TrialResult, lost_result
from study.store.tidy import tidy
from study.store.writer import AttemptTakenError, check_writable, write_result
from tests.s3_server import s3_server

TRIAL = "0" * 16
OTHER_MACHINE = {"process": "another-boot:pid:[1]/7@8", "owner": "another", "host": "far"}


@pytest.fixture(scope="module")
def bucket():
    with s3_server(errors=0.1, seed=3) as uri:
        yield uri


@pytest.fixture(params=["folder", "bucket"])
def store(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path)
    path, _, query = request.getfixturevalue("bucket").partition("?")
    return f"{path}/{uuid.uuid4().hex}?{query}"


def of_another_machine(store: str, **changes: object) -> None:
    hold = acquire(store, TRIAL, run="other")
    content = json.loads(read_file(store, f"claims/{TRIAL}.json"))
    hold.release()
    write_file(store, f"claims/{TRIAL}.json", json.dumps({**content, **OTHER_MACHINE, **changes}).encode())


def test_one_of_many_gets_it_and_the_next_after_it_is_given_up(store):
    barrier = threading.Barrier(8)

    def try_it(number: int) -> Hold | Lease:
        barrier.wait()
        return acquire(store, TRIAL, run=f"run {number}")

    with ThreadPoolExecutor(max_workers=8) as pool:
        answers = list(pool.map(try_it, range(8)))
    (hold,) = [answer for answer in answers if isinstance(answer, Hold)]
    assert read_leases(store).keys() == {TRIAL}
    assert hold.is_ours()
    hold.release()
    assert read_leases(store) == {}
    again = acquire(store, TRIAL)
    assert isinstance(again, Hold)
    again.release(done=True)
    assert not file_exists(store, f"claims/{TRIAL}.json")


def test_heartbeats_show_progress(store, monkeypatch):
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.05)
    hold = acquire(store, TRIAL, study="s", epochs=5)
    hold.progress(3)
    ends_at = time.monotonic() + 20
    while read_leases(store)[TRIAL].epoch != 3:
        assert time.monotonic() < ends_at
        time.sleep(0.02)
    assert not hold.lost
    hold.release()


def test_a_lease_of_another_machine_counts_until_it_is_stale(store, monkeypatch):
    of_another_machine(store, heartbeat_at="2999-01-01T00:00:00+00:00")
    assert acquire(store, TRIAL).host == "far"
    monkeypatch.setattr(leases, "STALE_S", -1.0)
    assert read_leases(store) == {}
    assert isinstance(acquire(store, TRIAL), Hold)


def test_a_wrong_clock_here_does_not_matter(store, monkeypatch):
    of_another_machine(store)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert isinstance(acquire(store, TRIAL), Lease)


def test_a_dead_process_of_this_machine_is_known_at_once(store):
    code = "import os, sys; from study.store.leases import acquire; acquire(*sys.argv[1:3]); os._exit(1)"
    subprocess.run([sys.executable, "-c", code, store, TRIAL], check=False, timeout=60)
    assert file_exists(store, f"claims/{TRIAL}.json")
    assert read_leases(store) == {}
    assert isinstance(acquire(store, TRIAL), Hold)


def test_who_lost_it_is_told_and_leaves_the_new_one(store):
    hold = acquire(store, TRIAL)
    content = json.loads(read_file(store, f"claims/{TRIAL}.json"))
    write_file(store, f"claims/{TRIAL}.json", json.dumps({**content, **OTHER_MACHINE}).encode())
    assert not hold.is_ours()
    hold.release(done=True)
    assert json.loads(read_file(store, f"claims/{TRIAL}.json"))["owner"] == "another"


def test_a_damaged_lease_is_reported_counts_for_nothing_and_is_mended_by_who_trains(store):
    hold = acquire(store, TRIAL)
    write_file(store, f"claims/{TRIAL}.json", b'{"pid": ')
    assert read_leases(store) == {}
    assert [Path(where).name for where in damaged_leases(store)] == [f"{TRIAL}.json"]
    assert hold.is_ours()
    assert read_leases(store).keys() == {TRIAL}
    write_file(store, f"claims/{TRIAL}.json", b"[]")
    taken = acquire(store, TRIAL)
    assert isinstance(taken, Hold)
    assert not hold.is_ours()


def test_tidying_leaves_what_counts(store, monkeypatch):
    kept, done = acquire(store, "a" * 16), acquire(store, "b" * 16)
    done.release()
    write_file(store, f"checkpoints/{'b' * 16}.pt", b"x")
    tidy(store, {"b" * 16})
    assert not file_exists(store, f"claims/{'b' * 16}.json")
    assert not file_exists(store, f"checkpoints/{'b' * 16}.pt")
    assert read_leases(store).keys() == {"a" * 16}
    monkeypatch.setattr(leases, "STALE_S", -1.0)
    remove_dead(store)
    assert not kept.is_ours()


def test_no_row_is_ever_written_over(store, make_trial):
    trial = make_trial()
    lost = lost_result(trial)
    write_result(store, TrialResult(trial={**lost.trial, "outcome": "ok"}))
    with pytest.raises(AttemptTakenError):
        write_result(store, lost)
    assert read_rows(store)[trial.trial_id]["outcome"] == "ok"
    write_result(store, lost.as_attempt(1))
    assert create_file(store, "study=small/other", b"1")
    assert not create_file(store, "study=small/other", b"2")
    remove_file(store, "study=small/other")
    remove_file(store, "study=small/other")


def test_a_run_is_refused_where_conditions_are_ignored_or_unknown(bucket, monkeypatch):
    check_writable(bucket)
    import obstore

    put = obstore.put
    monkeypatch.setattr("obstore.put", lambda *a, mode=None, **how: put(*a, **how))
    with pytest.raises(StoreError, match="ignores the condition of a conditional write"):
        check_writable(bucket)
    with pytest.raises(StoreError) as caught:
        check_writable("hdfs://host/results")
    assert caught.value.exit_code == 3
