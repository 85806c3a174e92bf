"""A lease as its file holds it, and what a place that keeps leases must be able to do."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Protocol

FOLDER = "claims"
"""Where leases stand below a store. The name is that of the first versions, whose runs look there."""

MOST_POINTS = 64
"""Points of the curve that a lease carries, at most: it is written every few seconds."""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """Who trains a trial. Times are ISO 8601 in UTC, by the clock of `host`, for people to read.

    Attributes:
        trial_id: The trial.
        study: The study of the run that trains it.
        host: Name of the machine.
        pid: Number of the process.
        started_at: When the lease was taken.
        heartbeat_at: When it was last refreshed.
        epoch: Epochs that are done.
        epochs: Epochs that the trial takes.
        process: Tells the process from a later one of the same number: see `study.store.process`.
        run: The run that handed the trial out.
        owner: A name for this lease alone.
        beats: How often it was refreshed, so that no two contents are equal.
        what: The trial in a few words.
        memory_bytes: The peak of memory of one of its training steps; 0 while that is not known.
        curve: Its training loss so far as JSON, pairs of a step and a loss, thinned to `MOST_POINTS`.
    """

    trial_id: str
    study: str
    host: str
    pid: int
    started_at: str
    heartbeat_at: str
    epoch: int
    epochs: int
    process: str = ""
    run: str = ""
    owner: str = ""
    beats: int = 0
    what: str = ""
    memory_bytes: int = 0
    curve: str = ""

    def to_bytes(self) -> bytes:
        """The content of the lease's file."""
        return json.dumps(asdict(self)).encode() + b"\n"


def longer(curve: str, step: int, loss: float) -> str:
    """Return a lease's curve with one more point; every other point goes once there are `MOST_POINTS`."""
    points = json.loads(curve) if curve else []
    points.append([step, loss if math.isfinite(loss) else None])
    return json.dumps(points[::2] if len(points) > MOST_POINTS else points)


def parse_lease(content: bytes) -> Lease | None:
    """The lease that a file holds; None where the file is damaged or no lease."""
    try:
        values = json.loads(content)
        lease = Lease(**{field.name: values[field.name] for field in fields(Lease) if field.name in values})
        datetime.fromisoformat(lease.started_at)
    except (ValueError, TypeError, RecursionError):
        return None
    kinds = {"str": str, "int": int}
    whole = all(isinstance(getattr(lease, field.name), kinds[str(field.type)]) for field in fields(Lease))
    return lease if whole else None


@dataclass(frozen=True, kw_only=True)
class FoundLease:
    """What stands in the place of a trial's lease.

    Attributes:
        trial_id: The trial, by the name of the file.
        lease: None where the file is damaged.
        age_s: Seconds since it was written, both times by the clock of the storage.
        token: What tells this state of the file from a later one.
        where: The file, for messages.
    """

    trial_id: str
    lease: Lease | None
    age_s: float
    token: str
    where: str


class LeaseStorage(Protocol):
    """A place that keeps leases. Each step happens as a whole, whoever else is at work on the same trial.

    All methods raise `OSError` where the storage does not answer.
    """

    def create(self, lease: Lease) -> str | None:
        """Put a lease where there is none; its token, or None if there is one."""

    def read(self, trial_id: str) -> FoundLease | None:
        """The lease of a trial, if there is one."""

    def replace(self, found: FoundLease, lease: Lease) -> str | None:
        """Put a lease in the place of one that counts no more; None if that one has changed since."""

    def refresh(self, lease: Lease, token: str) -> str | None:
        """Write our own lease anew; its next token, or None if it is ours no more."""

    def release(self, lease: Lease, token: str, *, done: bool) -> None:
        """Give our own lease up; `done` says that the trial has its final row."""

    def remove(self, found: FoundLease) -> None:
        """Remove a lease that counts no more, unless it has changed since."""

    def all(self) -> list[FoundLease]:
        """Every lease that may count."""

    def forget(self, done: set[str]) -> None:
        """Remove what is left of leases of trials that have their final row."""
