"""How far the studies of a store are: what is done, failed and retried, what runs now, and the time left.

Everything is read from the store: rows, the leases of running trials, and the study as the last run left it.
So it can be asked from any machine that sees the store, while a run goes on or after it was killed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from analysis.store.store import Store, open_store
from study.errors import StoreError
from study.outcomes import FAILED, OK, PRUNED
from study.store.files import read_file
from study.store.lease import Lease
from study.store.leases import damaged_leases, read_leases

WINDOW = 50
"""The rate is that of the last so many trials."""

GAP = timedelta(seconds=60)
"""No trial ends for so long: what was before is another run."""

_DAMAGED_LEASE = "a damaged lease, which counts for nothing"
_COLUMNS = (
    *("trial_id", "study", "attempt", "outcome", "error_class", "started_at", "finished_at", "wall_s"),
    *("accuracy_val", "accuracy_test", "bits_per_byte_val", "bits_per_byte_test"),
)


@dataclass(frozen=True, kw_only=True)
class StudyStatus:
    """One study of a store.

    Attributes:
        description: What it says that it asks.
        tags: The words that it is found by.
        planned: Trials of its last run, those that were done before among them; None if no run has said.
        trials: Trials with a row; `ok`, `pruned`, `interrupted` and `failed` (any other way) are their ends.
        retried: Of them, those that took more than one attempt.
        running: Trials that a process trains now.
        left: Trials without a row that are not running; interrupted ones count, for a run would train them.
        rate_per_hour: Trials that end in an hour, of the last `WINDOW` and those running; None while nothing
            runs.
        time_left_s: At that rate; None while nothing runs.
        best_accuracy_val: The best validation accuracy of a trial that ended ok.
        best_accuracy_test: The test accuracy of that trial. The test set chooses nothing.
        best_bits_per_byte_val: Of language models, the fewest bits per byte of validation text.
        best_bits_per_byte_test: Those of test text of that trial.
    """

    study: str
    description: str = ""
    tags: tuple[str, ...] = ()
    planned: int | None = None
    trials: int = 0
    ok: int = 0
    pruned: int = 0
    failed: int = 0
    interrupted: int = 0
    retried: int = 0
    running: int = 0
    left: int | None = None
    rate_per_hour: float | None = None
    time_left_s: float | None = None
    best_accuracy_val: float | None = None
    best_accuracy_test: float | None = None
    best_bits_per_byte_val: float | None = None
    best_bits_per_byte_test: float | None = None
    trial_time_s: float = 0.0
    last_row_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class StoreStatus:
    """All studies of a store, its running trials, and files that were left out with the reason."""

    store: str
    studies: tuple[StudyStatus, ...] = ()
    running: tuple[Lease, ...] = ()
    files_left_out: tuple[dict[str, str], ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Plain values for a machine to read."""
        return asdict(self)


def store_status(store: str, study: str | None = None, *, check_files: bool = True) -> StoreStatus:
    """Read how far the studies of a store, or one of them, are.

    `check_files` also reads the curves, to name the files of them that are torn or foreign.

    Returns:
        How far each study is, and what runs now.

    Raises:
        StoreError: The store cannot be read.
        UnknownStudyError: There is no such study.
    """
    return status_of(open_store(store, study), check_files=check_files)


def status_of(opened: Store, *, check_files: bool = True) -> StoreStatus:
    """Return `store_status` of a store that is open; leases are read as they are now.

    Raises:
        StoreError: The store cannot be read.
    """
    store, study = opened.path, opened.study
    leases = read_leases(store)
    studies = []
    for name in (study,) if study is not None else opened.studies:
        rows = _rows_of(opened, name)
        trained = [lease for lease in leases.values() if lease.study == name]
        planned = _planned(store, name)
        if rows or trained or planned or study is not None:
            status = _study_status(name, planned, rows, trained, datetime.now(UTC))
            studies.append(replace(status, description=opened.description(name), tags=opened.tags(name)))
    shown = {status.study for status in studies}
    left_out = [{"file": f.path, "reason": f.reason} for f in (opened.skipped if check_files else ())]
    left_out += [
        {"file": where, "reason": "a damaged lease, which counts for nothing"}
        for where in damaged_leases(store)
    ]
    return StoreStatus(
        store=store,
        studies=tuple(studies),
        running=tuple(sorted((c for c in leases.values() if c.study in shown), key=lambda c: c.started_at)),
        files_left_out=tuple(left_out),
    )


def _rows_of(opened: Store, study: str) -> list[Mapping[str, Any]]:
    members = opened.members(study)
    table = opened.table("trials").select(list(_COLUMNS))
    return [row for row in table.to_pylist() if row["study"] == study or row["trial_id"] in members]


def _planned(store: str, study: str) -> int | None:
    try:
        planned = json.loads(read_file(store, f"study={study}/study.json") or b"{}").get("planned")
    except (StoreError, ValueError, AttributeError, RecursionError):
        return None
    return planned if isinstance(planned, int) else None


def _study_status(
    study: str,
    planned: int | None,
    rows: Sequence[Mapping[str, Any]],
    leases: Sequence[Lease],
    now: datetime,
) -> StudyStatus:
    ends = Counter(_end(row) for row in rows)
    busy = {lease.trial_id for lease in leases}
    settled = sum(_end(row) != "interrupted" and row["trial_id"] not in busy for row in rows)
    left = None if planned is None else max(0, planned - settled - len(leases))
    rate = _rate(rows, leases, now) if leases else None
    time_left = None
    if rate and left is not None:
        time_left = (left + sum(1 - _share(lease) for lease in leases)) / rate
    best, shortest = _best(rows, "accuracy_val", 1), _best(rows, "bits_per_byte_val", -1)
    return StudyStatus(
        study=study,
        planned=planned,
        trials=len(rows),
        ok=ends[OK],
        pruned=ends[PRUNED],
        failed=ends[FAILED],
        interrupted=ends["interrupted"],
        retried=sum(row["attempt"] > 0 for row in rows),
        running=len(leases),
        left=left,
        rate_per_hour=3600 * rate if rate else None,
        time_left_s=time_left,
        best_accuracy_val=best.get("accuracy_val"),
        best_accuracy_test=best.get("accuracy_test"),
        best_bits_per_byte_val=shortest.get("bits_per_byte_val"),
        best_bits_per_byte_test=shortest.get("bits_per_byte_test"),
        trial_time_s=sum(row["wall_s"] or 0.0 for row in rows),
        last_row_at=max((row["finished_at"] for row in rows if row["finished_at"]), default=None),
    )


def _best(rows: Sequence[Mapping[str, Any]], column: str, sign: int) -> Mapping[str, Any]:
    """The trial that is best in validation: the largest value, or with a sign of -1 the smallest."""
    good = [row for row in rows if row["outcome"] == OK and row[column] is not None]
    return max(good, key=lambda row: sign * row[column], default={})


def _end(row: Mapping[str, Any]) -> str:
    if row["error_class"] == KeyboardInterrupt.__name__:
        return "interrupted"
    return row["outcome"] if row["outcome"] in (OK, PRUNED) else FAILED


def _share(lease: Lease) -> float:
    """The part of a running trial that is done."""
    return min(1.0, lease.epoch / lease.epochs) if lease.epochs else 0.0


def _rate(rows: Sequence[Mapping[str, Any]], leases: Sequence[Lease], now: datetime) -> float | None:
    """Trials a second: of the last `WINDOW` that ended in this run, and the shares of the running ones."""
    times = sorted((r["started_at"], r["finished_at"]) for r in rows if r["started_at"] and r["finished_at"])
    recent = sorted(times, key=lambda pair: pair[1])[-WINDOW:]
    first = min(datetime.fromisoformat(lease.started_at) for lease in leases)
    # Rows of earlier runs say nothing about this one: there was a gap before it.
    began, ended = first, 0
    for start, end in reversed(recent):
        if end < began - GAP:
            break
        began, ended = min(began, start), ended + 1
    elapsed = (now - began).total_seconds()
    done = ended + sum(_share(lease) for lease in leases)
    return done / elapsed if done and elapsed > 0 else None
