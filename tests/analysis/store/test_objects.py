"""Conditional writes and leases against a real S3 server, in peace and with throttled and cut requests."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from analysis.errors import StoreError
from analysis.store import exclusive as leases
from analysis.store.exclusive import TakenError, exclusive
from analysis.store.objects import Objects, ObjectStoreError
from analysis.store.store import open_store
from tests.s3_server import s3_server


@pytest.fixture(scope="module", params=[0.0, 0.2], ids=["calm", "one request in five fails"])
def address(request):
    with s3_server(errors=request.param, seed=1) as uri:
        yield uri


def test_an_object_is_made_once_and_replaced_only_as_it_was_read(address, request):
    objects, name = Objects(address), f"{request.node.name}/a.json"
    assert objects.read(name) is None
    first = objects.write(name, b"1", expected=None)
    assert first is not None
    assert objects.write(name, b"2", expected=None) is None
    second = objects.write(name, b"3", expected=first)
    assert second not in (None, first)
    assert objects.write(name, b"4", expected=first) is None
    found = objects.read(name)
    assert (found.content, found.version) == (b"3", second)
    assert abs(datetime.now(UTC) - found.modified) < timedelta(minutes=1)
    assert [listed.version for listed in objects.list(request.node.name)] == [second]
    objects.remove(name)
    objects.remove(name)
    assert objects.write(name, b"5", expected=second) is None
    assert objects.list(request.node.name) == []


def test_of_many_writers_one_succeeds(address, request):
    barrier, name = threading.Barrier(8), f"{request.node.name}/a.json"

    def make(number: int) -> str | None:
        objects = Objects(address)
        barrier.wait()
        return objects.write(name, b"writer %d" % number, expected=None)

    with ThreadPoolExecutor(max_workers=8) as pool:
        made = list(pool.map(make, range(8)))
    assert sum(version is not None for version in made) == 1


def test_no_count_is_lost_where_each_writer_expects_what_it_read(address, request):
    name, objects = f"{request.node.name}/count", Objects(address)
    objects.write(name, b"0", expected=None)

    def add(writer: int) -> None:
        added = 0
        while added < 5:
            found = objects.read(name)
            count = int(found.content.split()[0]) + 1
            added += objects.write(name, b"%d %d" % (count, writer), expected=found.version) is not None

    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(add, range(4)))
    # A write whose answer is lost, and which another has replaced since, is told as not done: 20 or more.
    assert int(objects.read(name).content.split()[0]) >= 20


def test_the_check_of_conditions_passes_here_and_fails_where_they_are_ignored(address, monkeypatch):
    Objects(address).check()
    import obstore

    put = obstore.put
    monkeypatch.setattr("obstore.put", lambda *a, mode, **how: put(*a, **how))  # a server that ignores them
    with pytest.raises(ObjectStoreError, match="ignores the condition of a conditional write"):
        Objects(address).check()


def no_answer(objects: Objects, name: str) -> None:
    raise ObjectStoreError("the network is down")


def test_a_connection_that_breaks_is_never_taken_for_a_torn_file(address, new_trial, write_file, tmp_path):
    row = new_trial(seed=1)
    file = write_file(tmp_path, "trials", [row])
    store, _, query = address.partition("?")
    uri = f"{store}/torn?{query}"
    name = f"study={row['study']}/trials/{file.name}"
    Objects(uri).put(name, file.read_bytes())
    assert open_store(uri).table("trials")["trial_id"].to_pylist() == [row["trial_id"]]
    assert open_store(uri).skipped == ()
    Objects(uri).put(name, file.read_bytes()[:-100])
    assert [skipped.path.rpartition("/")[2] for skipped in open_store(uri).skipped] == [file.name]
    Objects(uri).put(name, file.read_bytes())
    opened = open_store(uri)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Objects, "read", no_answer)
        with pytest.raises(StoreError, match="the network is down"):
            opened.table("trials")


@pytest.mark.parametrize("uri", ["hdfs://host/results", "ftp://host/results"])
def test_storage_without_conditional_writes_is_refused_by_name(uri):
    with pytest.raises(
        ObjectStoreError, match=f"storage of the kind '{uri[:3]}.*' has no conditional writes"
    ):
        Objects(uri)


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_one_at_a_time_and_again_after_the_end(address, tmp_path, kind):
    (tmp_path / "study=s").mkdir()
    store = tmp_path if kind == "folder" else address
    with exclusive(store, "study=s/.lock") as still_ours:
        with pytest.raises(TakenError, match="has the"), exclusive(store, "study=s/.lock"):
            pass
        still_ours()
    with exclusive(store, "study=s/.lock") as still_ours:
        still_ours()


def test_a_lease_that_was_not_refreshed_is_taken_over_and_its_owner_is_told(address, monkeypatch):
    with exclusive(address, "taken/.lock") as first:
        monkeypatch.setattr(leases, "STALE_S", -1.0)
        with exclusive(address, "taken/.lock") as second:
            with pytest.raises(TakenError, match="took the lease over"):
                first()
            second()
    monkeypatch.setattr(leases, "STALE_S", 60.0)
    with exclusive(address, "taken/.lock"):
        pass
