"""The table that a disturbed study left, against that of an undisturbed run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from analysis.store.store import open_store
from analysis.store.trials import TrialTable, has_ended

UNEQUAL = {
    "attempt",
    "concurrent_trials",
    "epoch_s",
    "examples_per_s",
    "finished_at",
    "started_at",
    "step_time_s",
    "tokens_per_s",
    "train_s",
    "wall_s",
}
"""Columns of time, and of what a trial was disturbed by."""

Row = dict[str, Any]


def compare(calm: str, store: str, fail: Callable[[str], None]) -> Counter[str]:
    """Count what is lost, duplicated and different; each is told to `fail`."""
    tally = Counter[str]()
    expected, found = open_store(calm), open_store(store)
    wanted, rows = by_key(expected.rows("trials")), found.rows("trials")
    attempts = TrialTable(store).attempts(("trial_id", "attempt", "outcome"))
    ended: dict[str, set[int]] = defaultdict(set)
    for row in attempts.filter(has_ended(attempts)).to_pylist():
        ended[row["trial_id"]].add(row["attempt"])
    for trial_id, numbers in ended.items():
        if len(numbers) > 1:
            tally["duplicated"] += 1
            fail(f"duplicated: {trial_id} was trained to an end in attempts {sorted(numbers)}")
    got = by_key(rows)
    for key, row in wanted.items():
        if key not in got or got[key]["outcome"] != row["outcome"]:
            tally["lost"] += 1
            fail(f"lost: {row['trial_id']}: {ending(row)}, and here {ending(got.get(key))}")
        elif unequal := differences(row, got[key]):
            tally["different"] += 1
            fail(f"different: {row['trial_id']}: {', '.join(unequal)}")
    for table in ("trials", "epochs", "blocks"):
        left, right = by_key(expected.rows(table)), by_key(found.rows(table))
        double = len(found.rows(table)) - len(right)
        if double:
            tally["duplicated"] += double
            fail(f"duplicated: {double} rows of {table}")
        if table != "trials":
            tally["lost"] += len(left.keys() - right.keys())
            other = [k for k in left.keys() & right.keys() if differences(left[k], right[k])]
            tally["different"] += len(other) + len(right.keys() - left.keys())
            if left.keys() != right.keys() or other:
                gone, more = len(left.keys() - right.keys()), len(right.keys() - left.keys())
                fail(f"{table}: {gone} rows lost, {more} too many, {len(other)} different")
    return tally


def by_key(rows: list[Row]) -> dict[tuple[Any, ...], Row]:
    """Rows by what names them."""
    return {tuple(row.get(name) for name in ("trial_id", "epoch", "block", "name")): row for row in rows}


def differences(one: Row, other: Row) -> list[str]:
    """The columns in which two rows differ, but for those of time."""
    return [name for name in one if name not in UNEQUAL and repr(one[name]) != repr(other[name])]


def ending(row: Row | None) -> str:
    """How a trial ended, in a few words."""
    if row is None:
        return "no row"
    return f"{row['outcome']} {row['error_class'] or ''} {(row['error_message'] or '')[:300]}".strip()
