"""Leases between processes of this machine, and with machines whose clocks are wrong."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from study.errors import StoreError
from study.store import leases
from study.store.lease import Lease
from study.store.lease_files import LeaseFiles
from study.store.leases import STALE_S, Hold, acquire, damaged_leases, read_leases, remove_dead
from study.store.tidy import OLD_S, tidy

TRIAL = "0" * 16


def file_of(store: Path) -> Path:
    return store / "claims" / f"{TRIAL}.json"


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def elsewhere(store: Path, **changes: object) -> Path:
    """The lease of a process of another machine."""
    hold = acquire(store, TRIAL, run="other")
    content = json.loads(file_of(store).read_text())
    hold.release()
    machine = {"host": "far", "process": "another-boot:pid:[1]/7@8", "owner": "another"}
    file_of(store).write_text(json.dumps({**content, **machine, **changes}))
    return file_of(store)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.05)


def test_a_lease_says_who_trains_what_and_goes_with_the_trial(tmp_path):
    hold = acquire(tmp_path, TRIAL, study="s", epochs=5)
    assert isinstance(hold, Hold)
    content = json.loads(file_of(tmp_path).read_text())
    assert {name: content[name] for name in ("trial_id", "study", "pid", "epoch", "epochs")} == {
        "trial_id": TRIAL,
        "study": "s",
        "pid": os.getpid(),
        "epoch": 0,
        "epochs": 5,
    }
    assert {"host", "started_at", "heartbeat_at"} < set(content)
    assert read_leases(tmp_path)[TRIAL].study == "s"
    hold.release()
    assert list((tmp_path / "claims").iterdir()) == []
    assert read_leases(tmp_path) == {}


def test_one_of_many_gets_it(tmp_path):
    barrier = threading.Barrier(16)

    def try_it(number: int) -> Hold | Lease:
        barrier.wait()
        return acquire(tmp_path, TRIAL, run=f"run {number}")

    with ThreadPoolExecutor(max_workers=16) as pool:
        answers = list(pool.map(try_it, range(16)))
    holds = [answer for answer in answers if isinstance(answer, Hold)]
    assert len(holds) == 1
    holds[0].release()


def test_the_heartbeat_shows_progress(tmp_path, quick):
    hold = acquire(tmp_path, TRIAL, epochs=5)
    before = file_of(tmp_path).stat().st_mtime_ns
    hold.progress(3)
    deadline = time.monotonic() + 10
    while read_leases(tmp_path)[TRIAL].epoch != 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert file_of(tmp_path).stat().st_mtime_ns > before
    hold.release()
    time.sleep(0.2)
    assert not file_of(tmp_path).exists()


def test_a_dead_process_of_this_machine_is_known_at_once(tmp_path):
    code = "import os, sys; from study.store.leases import acquire; acquire(*sys.argv[1:3]); os._exit(1)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path), TRIAL], check=False, timeout=60)
    assert file_of(tmp_path).exists()
    assert read_leases(tmp_path) == {}
    hold = acquire(tmp_path, TRIAL)
    assert isinstance(hold, Hold)
    hold.release()


@pytest.mark.parametrize("shown", ["2001-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00"])
def test_the_clock_of_another_machine_does_not_matter(tmp_path, shown):
    file = elsewhere(tmp_path, heartbeat_at=shown)
    age(file, STALE_S - 10)
    assert isinstance(acquire(tmp_path, TRIAL), Lease)
    age(file, STALE_S + 10)
    assert isinstance(acquire(tmp_path, TRIAL), Hold)


def test_a_wrong_clock_here_does_not_matter(tmp_path, monkeypatch):
    elsewhere(tmp_path)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert isinstance(acquire(tmp_path, TRIAL), Lease)


def damage(file: Path, content: bytes | str) -> None:
    file.unlink(missing_ok=True)
    if content == "a folder":
        (file / "of").mkdir(parents=True)
    elif content == "a pipe":
        os.mkfifo(file)
    elif content == "a loop":
        file.symlink_to(file)
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())


DAMAGED = [
    *("", '{"trial_id": "0', "[1]", '{"pid": 1}', b"\xff\x00", "[" * 100_000),
    json.dumps(
        {"trial_id": TRIAL, "study": "s", "host": "h", "pid": "1", "started_at": "then", "epochs": []}
    ),
    *("a folder", "a pipe", "a loop"),
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: repr(content)[:20])
def test_a_damaged_lease_is_reported_and_counts_for_nothing(tmp_path, content):
    (tmp_path / "claims").mkdir()
    damage(file_of(tmp_path), content)
    assert read_leases(tmp_path) == {}
    assert damaged_leases(tmp_path) == [str(file_of(tmp_path))]
    hold = acquire(tmp_path, TRIAL)
    assert isinstance(hold, Hold)
    assert damaged_leases(tmp_path) == []
    hold.release()
    damage(file_of(tmp_path), content)
    remove_dead(tmp_path)
    assert not file_of(tmp_path).exists()


def test_who_trains_mends_a_lease_that_is_damaged_under_it(tmp_path):
    hold = acquire(tmp_path, TRIAL)
    file_of(tmp_path).write_text("{")
    assert hold.is_ours()
    assert read_leases(tmp_path).keys() == {TRIAL}
    hold.release()
    assert not file_of(tmp_path).exists()


def test_who_lost_a_lease_is_told_and_leaves_the_new_one(tmp_path, quick):
    hold = acquire(tmp_path, TRIAL)
    elsewhere_ = json.loads(file_of(tmp_path).read_text()) | {"owner": "another"}
    temporary = tmp_path / "new"
    temporary.write_text(json.dumps(elsewhere_))
    temporary.replace(file_of(tmp_path))
    deadline = time.monotonic() + 10
    while not hold.lost:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    hold.release()
    assert json.loads(file_of(tmp_path).read_text())["owner"] == "another"


def test_a_new_lease_is_not_taken_for_the_dead_one_before_it(tmp_path):
    storage = LeaseFiles(tmp_path)
    elsewhere(tmp_path)
    dead = storage.read(TRIAL)
    elsewhere(tmp_path, owner="a third")
    storage.remove(dead)
    assert storage.read(TRIAL).lease.owner == "a third"
    storage.remove(storage.read(TRIAL))
    assert not list((tmp_path / "claims").iterdir())


def test_a_run_takes_over_what_its_own_lost_process_left(tmp_path):
    hold = acquire(tmp_path, TRIAL, run="mine")
    assert isinstance(acquire(tmp_path, TRIAL, run="another"), Lease)
    assert isinstance(acquire(tmp_path, TRIAL, run="mine"), Hold)
    hold.release()
    assert file_of(tmp_path).exists()


def test_a_store_that_takes_no_lease(tmp_path):
    (tmp_path / "claims").write_text("a file")
    with pytest.raises(StoreError) as caught:
        acquire(tmp_path, TRIAL)
    assert caught.value.exit_code == 3


def test_tidying_removes_what_killed_runs_left_and_nothing_else(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("done", "going"):
        (tmp_path / "checkpoints" / f"{name}.pt").write_bytes(b"x")
    folder = tmp_path / "study=s" / "trials"
    folder.mkdir(parents=True)
    (folder.parent / "study.json").write_text("{}")
    part, recent, own = (
        folder / ".x-a0.parquet.0123abcd",
        folder / ".y-a0.parquet.0123abcd",
        folder / ".keep",
    )
    for file in (part, recent, own):
        file.write_bytes(b"x")
    for file in (part, own):
        age(file, OLD_S + 60)
    alive = elsewhere(tmp_path)
    tidy(tmp_path, {"done"})
    assert sorted(f.name for f in (tmp_path / "checkpoints").iterdir()) == ["going.pt"]
    assert sorted(f.name for f in folder.iterdir()) == [".keep", ".y-a0.parquet.0123abcd"]
    assert alive.exists()
    age(alive, STALE_S + 10)
    remove_dead(tmp_path)
    assert not alive.exists()
