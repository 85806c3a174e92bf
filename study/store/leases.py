"""Leases: who trains which trial, so that several runs share a store and no trial is trained twice.

The process that is about to train a trial takes its lease, ``<store>/claims/<trial>.json``, which it can do
only while there is none. It refreshes the lease every `HEARTBEAT_S` and gives it up at the end. A lease
counts no more if its process is gone from this machine, or has not refreshed it for `STALE_S`: whoever wants
the trial then takes it over. One that is damaged counts for nothing, and is reported.

Ages are differences of two times that the storage gave, so clocks of machines that disagree do no harm. A
folder keeps leases as files (`lease_files`), object storage as objects that are written conditionally
(`lease_objects`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import uuid
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.store.objects import objects_at
from study.store.files import local_folder, located, store_errors
from study.store.lease import FoundLease, Lease, LeaseStorage, longer
from study.store.lease_files import LeaseFiles
from study.store.lease_objects import LeaseObjects
from study.store.process import is_gone, process_name

HEARTBEAT_S = 5.0
STALE_S = 60.0


class Hold:
    """A trial that is ours while this lasts; its thread refreshes the lease.

    Attributes:
        lost: Another process has taken the trial over.
    """

    def __init__(self, storage: LeaseStorage, lease: Lease, token: str) -> None:
        self._storage = storage
        self._lease = lease
        self._token = token
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.lost = False
        threading.Thread(target=self._beat, name="lease", daemon=True).start()

    def progress(self, epoch: int, known: Mapping[str, Any] | None = None) -> None:
        """Say how many epochs are done, and what is known of the trial; the file follows with the next
        heartbeat.

        Args:
            epoch: How many are done.
            known: Columns of the trial and of this epoch: its step, its training loss, its peak of memory.
        """
        told = known or {}
        with self._lock:
            lease = replace(self._lease, epoch=epoch)
            if (loss := told.get("loss_train")) is not None:
                lease = replace(lease, curve=longer(lease.curve, int(told.get("step") or epoch), float(loss)))
            if (peak := told.get("memory_peak_bytes")) is not None:
                lease = replace(lease, memory_bytes=int(peak))
            self._lease = lease

    def is_ours(self) -> bool:
        """Return whether the lease is ours at this moment. To be asked before a row is written.

        A process that was stopped for a while, or whose machine slept, may have lost it since the last beat.
        Where the storage does not answer, the answer is yes: it will not take the row either.
        """
        with self._lock:
            self._refresh()
        return not self.lost

    def release(self, *, done: bool = False) -> None:
        """Give the lease up, unless another took it over; `done` says that the trial has its final row."""
        self._ended.set()
        with self._lock, contextlib.suppress(OSError):  # it goes stale by itself
            if not self.lost:
                self._storage.release(self._lease, self._token, done=done)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            with self._lock:
                if not self._ended.is_set():
                    self._refresh()

    def _refresh(self) -> None:
        if self.lost:
            return
        self._lease = replace(self._lease, heartbeat_at=_now(), beats=self._lease.beats + 1)
        with contextlib.suppress(OSError):  # a full disk for a moment; the row tells of a lasting one
            token = self._storage.refresh(self._lease, self._token)
            if token is None:
                self.lost = True
                self._ended.set()
            else:
                self._token = token


def acquire(
    store: str | Path,
    trial_id: str,
    *,
    study: str = "",
    epochs: int = 0,
    run: str = "",
    what: str = "",
) -> Hold | Lease:
    """Take the lease of a trial.

    Args:
        store: The store.
        trial_id: The trial.
        study: The study that it is trained for.
        epochs: How many epochs it takes.
        run: The run that hands it out. A lease that a process of the same run has left is taken over: a run
            hands a trial out again only once it has lost the process that had it.
        what: The trial in a few words, for those who watch the run.

    Returns:
        The `Hold` on the trial, or the lease of whoever trains it.

    Raises:
        StoreError: The store cannot be written.
    """
    lease = Lease(
        trial_id=trial_id,
        study=study,
        host=socket.gethostname(),
        pid=os.getpid(),
        started_at=_now(),
        heartbeat_at=_now(),
        epoch=0,
        epochs=epochs,
        process=process_name(os.getpid()),
        run=run,
        what=what,
        owner=uuid.uuid4().hex,
    )
    with store_errors(store, "written"):
        storage = _storage(store)
        while True:
            token = storage.create(lease)
            if token is None:
                found = storage.read(trial_id)
                if found is None:
                    continue  # given up this moment
                if found.lease is not None and not (run and found.lease.run == run) and not _is_dead(found):
                    return found.lease
                token = storage.replace(found, lease)
            if token is not None:
                return Hold(storage, lease, token)


def read_leases(store: str | Path) -> dict[str, Lease]:
    """Return the leases of a store that count, by trial id.

    Raises:
        StoreError: The store cannot be read.
    """
    return {
        found.lease.trial_id: found.lease
        for found in _all(store)
        if found.lease is not None and not _is_dead(found)
    }


def damaged_leases(store: str | Path) -> list[str]:
    """Return the files in the place of leases that are none; they count for nothing.

    Raises:
        StoreError: The store cannot be read.
    """
    return [found.where for found in _all(store) if found.lease is None]


def remove_dead(store: str | Path, done: Collection[str] = ()) -> None:
    """Remove the leases that count no more, and what is left of those of trials that are `done`.

    Raises:
        StoreError: The store cannot be written.
    """
    with store_errors(store, "written"):
        storage = _storage(store)
        for found in storage.all():
            if found.lease is None or _is_dead(found):
                storage.remove(found)
        storage.forget(set(done))


def _storage(store: str | Path) -> LeaseStorage:
    folder = local_folder(store)
    return LeaseObjects(objects_at(located(store))) if folder is None else LeaseFiles(folder)


def _all(store: str | Path) -> list[FoundLease]:
    with store_errors(store, "read"):
        return _storage(store).all()


def _is_dead(found: FoundLease) -> bool:
    """Whether a lease counts no more."""
    gone = found.lease is not None and is_gone(found.lease.process, found.lease.pid)
    return gone or found.age_s > STALE_S


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
