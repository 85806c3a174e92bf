"""Leases as objects in object storage, where each change is a conditional write.

No lease is deleted while somebody may want the trial: between a look at an object and its deletion another
could have taken it. A lease that is given up is replaced by one that says so, and that one goes once the
trial has its final row: who takes it after that finds the row.
"""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from analysis.store.objects import Objects, ObjectStoreError, Stored
from study.store.lease import FOLDER, FoundLease, Lease, parse_lease

RELEASED = b'{"released": true}\n'
OLD_S = 600.0
"""An object that was not written for so long is no lease that counts: it is not even read."""


class LeaseObjects:
    """The leases of a store in object storage."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def create(self, lease: Lease) -> str | None:
        """See `study.store.lease.LeaseStorage`."""
        name = _name(lease.trial_id)
        token = self._objects.write(name, lease.to_bytes(), expected=None)
        if token is None and (found := self._objects.read(name)) is not None and _is_released(found):
            token = self._objects.write(name, lease.to_bytes(), expected=found.version)
        return token

    def read(self, trial_id: str) -> FoundLease | None:
        """See `study.store.lease.LeaseStorage`."""
        found = self._objects.read(_name(trial_id))
        return None if found is None else self._found(found, self._now())

    def replace(self, found: FoundLease, lease: Lease) -> str | None:
        """See `study.store.lease.LeaseStorage`."""
        return self._objects.write(_name(lease.trial_id), lease.to_bytes(), expected=found.token)

    def refresh(self, lease: Lease, token: str) -> str | None:
        """See `study.store.lease.LeaseStorage`."""
        name = _name(lease.trial_id)
        version = self._objects.write(name, lease.to_bytes(), expected=token)
        if version is None and (found := self._objects.read(name)) is not None:
            held = parse_lease(found.content)
            if (held is None and not _is_released(found)) or (held and held.owner == lease.owner):
                version = self._objects.write(name, lease.to_bytes(), expected=found.version)
        return version

    def release(self, lease: Lease, token: str, *, done: bool) -> None:
        """See `study.store.lease.LeaseStorage`."""
        if self._objects.write(_name(lease.trial_id), _released(lease), expected=token) and done:
            self._objects.remove(_name(lease.trial_id))

    def remove(self, found: FoundLease) -> None:
        """See `study.store.lease.LeaseStorage`."""
        self._objects.write(_name(found.trial_id), RELEASED, expected=found.token)

    def all(self) -> list[FoundLease]:
        """See `study.store.lease.LeaseStorage`."""
        listed = [stored for stored in self._objects.list(FOLDER) if _trial_id(stored.name)]
        if not listed:
            return []
        now = self._now()
        recent = [stored.name for stored in listed if (now - stored.modified).total_seconds() < OLD_S]
        with ThreadPoolExecutor(max_workers=8) as pool:
            read = list(pool.map(self._objects.read, recent))
        found = (self._found(stored, now) for stored in read if stored is not None)
        return [lease for lease in found if lease is not None]

    def forget(self, done: set[str]) -> None:
        """See `study.store.lease.LeaseStorage`."""
        for stored in self._objects.list(FOLDER):
            if _trial_id(stored.name) in done:
                self._objects.remove(stored.name)

    def _found(self, stored: Stored, now: datetime) -> FoundLease | None:
        if _is_released(stored):
            return None
        return FoundLease(
            trial_id=_trial_id(stored.name),
            lease=parse_lease(stored.content),
            age_s=(now - stored.modified).total_seconds(),
            token=stored.version,
            where=f"{FOLDER}/{stored.name.rpartition('/')[2]}",
        )

    def _now(self) -> datetime:
        """The storage's clock; where it may not be written to, this one has to do."""
        with contextlib.suppress(ObjectStoreError):
            return self._objects.now(FOLDER)
        return datetime.now(UTC)


def _name(trial_id: str) -> str:
    return f"{FOLDER}/{trial_id}.json"


def _trial_id(name: str) -> str:
    """The trial of an object's name, or nothing."""
    last = name.rpartition("/")[2]
    return last.removesuffix(".json") if last.endswith(".json") and not last.startswith(".") else ""


def _released(lease: Lease) -> bytes:
    return json.dumps({"released": True, "owner": lease.owner}).encode() + b"\n"


def _is_released(stored: Stored) -> bool:
    try:
        values = json.loads(stored.content)
    except (ValueError, RecursionError):
        return False
    return isinstance(values, dict) and values.get("released") is True
