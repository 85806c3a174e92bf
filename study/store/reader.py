"""What a run asks of the rows in a store, as plain values; they are read by `analysis.store` alone.

A plan knows the ids of its trials. So it opens the files of those trials, the merged files, and the newest
few of the others; never a hundred thousand files one by one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from analysis.errors import StoreError as UnreadableError
from analysis.store.trials import TrialTable, attempts_of, has_ended, next_attempts
from study import outcomes
from study.errors import StoreError
from study.store.files import located

NEWEST = 256
"""Files of single trials, beyond those of the plan, that are read to learn how long trials take."""

_TIMES = (
    *("trial_id", "outcome", "config_json", "batch_size", "workers", "compute_dtype", "examples_train"),
    *("epochs_done", "steps_done", "step_time_s", "wall_s", "device", "cpu_threads", "finished_at"),
)

_MEMORY = ("trial_id", "study", "attempt", "outcome", "memory_predicted_bytes", "gpus_per_worker")

Row = dict[str, Any]
"""One row of the table of trials: every column, null where it is unknown."""


class History:
    """The trials of a store, listed once. A store that does not exist yet has none.

    Args:
        store: A folder or the URI of object storage.

    Raises:
        StoreError: The store cannot be listed.
    """

    def __init__(self, store: str | Path) -> None:
        self._store = store
        with _errors(store):
            self._table = TrialTable(located(store))

    def done(self, trial_ids: Collection[str] | None = None) -> dict[str, str]:
        """Return those of `trial_ids`, or of all, that need no training, each with the study that trained it.

        Raises:
            StoreError: The store cannot be read, or is of a newer schema.
        """
        with _errors(self._store):
            found = self._table.attempts(("trial_id", "study", "outcome"), trial_ids)
        final = found.filter(has_ended(found))
        return dict(zip(final["trial_id"].to_pylist(), final["study"].to_pylist(), strict=True))

    def unfit(self, trial_ids: Collection[str] | None = None) -> list[Row]:
        """Return the last row of those of `trial_ids` that did not fit the machine of their last attempt.

        It has the columns trial_id, study, memory_predicted_bytes and gpus_per_worker.

        Raises:
            StoreError: The store cannot be read, or is of a newer schema.
        """
        with _errors(self._store):
            found = self._table.attempts(_MEMORY, trial_ids)
        last: dict[str, Row] = {}
        for row in found.to_pylist():
            last[row["trial_id"]] = max(last.get(row["trial_id"], row), row, key=lambda r: r["attempt"] or 0)
        return [row for row in last.values() if row["outcome"] == outcomes.UNFIT]

    def rows(self, trial_ids: Collection[str] | None = None) -> dict[str, Row]:
        """Return one row for each trial: its last attempt that ended ok, or else its last attempt.

        Raises:
            StoreError: The store cannot be read, or is of a newer schema.
        """
        with _errors(self._store):
            found = self._table.rows(None, trial_ids)
        return {row["trial_id"]: row for row in found.to_pylist()}

    def attempts(self, trial_ids: Collection[str] | None = None) -> dict[str, int]:
        """Return the number of the next attempt of every trial that the store has a row of.

        Raises:
            StoreError: The store cannot be read, or is of a newer schema.
        """
        with _errors(self._store):
            return next_attempts(self._table.attempts(("trial_id", "attempt"), trial_ids))

    def timed(self, trial_ids: Collection[str] = ()) -> list[Row]:
        """Return rows of trials that ended ok, with their times: the plan's own, merged ones, the newest
        others.

        At most twice `NEWEST` of each kind are taken, the last to finish.

        Raises:
            StoreError: The store cannot be read, or is of a newer schema.
        """
        own = sorted(trial_ids)[:NEWEST]
        with _errors(self._store):
            tables = [self._table.latest(_TIMES, NEWEST)]
            if own:
                tables.append(self._table.attempts(_TIMES, own))
        rows: dict[tuple[Any, ...], Row] = {}
        for table in tables:
            good = pc.and_(pc.equal(table["outcome"], outcomes.OK), pc.is_valid(table["config_json"]))
            kept = table.filter(pc.and_(good, pc.greater(table["steps_done"], 0)))
            order = pc.sort_indices(kept, sort_keys=[("finished_at", "descending")])[: 2 * NEWEST]
            rows.update({(row["trial_id"], row["finished_at"]): row for row in kept.take(order).to_pylist()})
        return list(rows.values())

    @property
    def left_out(self) -> list[tuple[str, str]]:
        """The files that were left out of what was read so far, each with the reason."""
        return [(file.path, file.reason) for file in self._table.skipped]


def read_rows(store: str | Path) -> dict[str, Row]:
    """Return the row of every trial of a store; see `History.rows`.

    Raises:
        StoreError: The store cannot be read, or is of a newer schema.
    """
    return History(store).rows()


def trial_rows(store: str | Path, trial_id: str) -> list[Row]:
    """Return the rows of all attempts at one trial, in order. It takes milliseconds in a store of any size.

    Raises:
        StoreError: The store cannot be read, or is of a newer schema.
    """
    with _errors(store):
        found: list[Row] = attempts_of(located(store), trial_id).to_pylist()
        return found


@contextlib.contextmanager
def _errors(store: str | Path) -> Iterator[None]:
    """Turn what reading raises into the error of a store that a run knows."""
    try:
        yield
    except UnreadableError as error:
        raise StoreError(
            rule=str(error), remedy="or choose another store with --store or REVSTUDY_STORE"
        ) from None
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            rule=f"the store could not be read ({error})",
            value=str(store),
            remedy="choose another store with --store or REVSTUDY_STORE",
        ) from None
