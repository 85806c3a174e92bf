"""What a run asks a store: which trials are done, which attempts there were, what others have taken.

A run knows the ids of its trials. So it opens the files of those trials, the merged files, and no others:
never a hundred thousand files one by one. Everything is read by the rules of `analysis.store.reading`, so a
file that a report leaves out is left out here, too.

    trials = TrialTable("results")
    rows = trials.rows(("trial_id", "outcome", "error_class"), trial_ids=plan_ids)
    done = set(rows.filter(has_ended(rows))["trial_id"].to_pylist())
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.errors import StoreError
from analysis.schema import FINAL, TRIALS
from analysis.store.listing import (
    Listing,
    SkippedFile,
    VanishedError,
    is_merged,
    list_files,
    may_hold,
)
from analysis.store.manifest import MERGED, read_manifest
from analysis.store.reading import Read, empty, in_threads, read_files
from analysis.store.storage import Item, Storage, open_storage

T = TypeVar("T")

INTERRUPTED = "KeyboardInterrupt"
"""The ``error_class`` of a trial that a user stopped: it did not fail, and a run trains it again."""

ATTEMPTS_PROBED = 8
"""Names of attempts that are looked for beyond the last one found, where files are found by name alone."""

_CHOICE = ("trial_id", "study", "attempt", "outcome", "finished_at")


class TrialTable:
    """The table of trials of a store, its files listed once. A store that does not exist yet is empty.

    Every method that reads lists the files again, and reads again, if a merge took one of them away.

    Args:
        location: A local path, a URI that `pyarrow.fs` understands, or an open `Storage`.

    Raises:
        StoreError: The store cannot be listed.
    """

    def __init__(self, location: str | Path | Storage) -> None:
        self._location = location
        self._listing = list_files(location, missing_ok=True)
        self._skipped: dict[str, SkippedFile] = {}
        self._note(self._listing.odd["trials"])

    @property
    def skipped(self) -> tuple[SkippedFile, ...]:
        """The files left out by what was read so far, with the reasons, each once."""
        return tuple(self._skipped.values())

    def attempts(
        self, columns: Collection[str] | None = None, trial_ids: Collection[str] | None = None
    ) -> pa.Table:
        """Return one row per attempt, in no order.

        Args:
            columns: The columns to read, in this order; all without it.
            trial_ids: Only these trials: the files of others are not opened. All without it.

        Raises:
            StoreError: A file is of a newer schema, or files keep vanishing.
        """
        return self._again(lambda: self._attempts(columns, trial_ids))

    def rows(
        self, columns: Collection[str] | None = None, trial_ids: Collection[str] | None = None
    ) -> pa.Table:
        """Return one row per trial: of its attempts the last one that ended ``ok``, else the last one.

        Args:
            columns: The columns to read, in this order; all without it.
            trial_ids: Only these trials: the files of others are not opened. All without it.

        Raises:
            StoreError: A file is of a newer schema, or files keep vanishing.
        """
        wide = None if columns is None else list(dict.fromkeys((*columns, *_CHOICE)))
        found = one_per_trial(self.attempts(wide, trial_ids))
        return found if columns is None else found.select(list(columns))

    def latest(self, columns: Collection[str], at_most: int) -> pa.Table:
        """Return the attempts in the files of single trials that were written last, and in all merged files.

        Args:
            columns: The columns to read, in this order.
            at_most: Files of single trials to read.

        Raises:
            StoreError: A file is of a newer schema, or files keep vanishing.
        """

        def read() -> pa.Table:
            listing = self._listing
            merged = [path for path in listing.files["trials"] if is_merged(path)]
            single = [path for path in listing.files["trials"] if not is_merged(path)]
            single.sort(key=lambda path: (-listing.changed_ns.get(path, 0), path))
            return self._read([*merged, *sorted(single[:at_most])], columns, None)

        return self._again(read)

    def _attempts(self, columns: Collection[str] | None, trial_ids: Collection[str] | None) -> pa.Table:
        paths: Sequence[str] = self._listing.files["trials"]
        if trial_ids is None:
            return self._read(paths, columns, None)
        wanted = trial_ids if isinstance(trial_ids, set | frozenset | dict) else frozenset(trial_ids)
        own = [path for path in paths if may_hold(path, wanted)]
        return self._read(own, columns, wanted)

    def _read(
        self, paths: Sequence[str], columns: Collection[str] | None, wanted: Collection[str] | None
    ) -> pa.Table:
        part, skipped = _read_paths(self._listing, paths, columns, wanted)
        self._note(skipped)
        return part

    def _note(self, skipped: Collection[SkippedFile]) -> None:
        self._skipped.update({file.path: file for file in skipped})

    def _again(self, read: Callable[[], T]) -> T:
        """What `read` returns; files that a merge took away meanwhile are listed anew."""
        for _ in range(5):
            try:
                return read()
            except VanishedError as error:
                vanished = error
                self._listing = list_files(self._location, missing_ok=True)
                self._note(self._listing.odd["trials"])
        raise StoreError(f"files of the store {str(self._location)!r} keep vanishing: {vanished}")


def attempts_of(
    location: str | Path | Storage, trial_id: str, columns: Collection[str] | None = None
) -> pa.Table:
    """Return the attempts of one trial, one row each, by attempt. It takes milliseconds in a store of any
    size.

    The files are found by their names, without listing a folder of trials; merged files are read too.

    Args:
        location: A local path, a URI that `pyarrow.fs` understands, or an open `Storage`.
        trial_id: The trial.
        columns: The columns to read, in this order; all without it.

    Raises:
        StoreError: The store cannot be read, or a file is of a newer schema.
    """
    storage = location if isinstance(location, Storage) else open_storage(location)
    wide = None if columns is None else list(dict.fromkeys((*columns, "trial_id", "attempt")))
    for _ in range(5):
        try:
            parts = [
                part
                for item in storage.items(storage.root)
                if item.kind == "folder" and item.name.startswith("study=")
                for part in _parts_of(storage, item.path, trial_id, wide)
            ]
            found = pa.concat_tables([empty(TRIALS, wide), *parts]).sort_by("attempt")
            return found if columns is None else found.select(list(columns))
        except VanishedError as error:
            vanished = error
        except OSError as error:
            raise StoreError(f"cannot read the store at {storage.root!r}: {error}") from None
    raise StoreError(f"files of the store {storage.root!r} keep vanishing: {vanished}")


def one_per_trial(attempts: pa.Table) -> pa.Table:
    """Of each trial the last attempt that ended ``ok``, else the last one.

    Args:
        attempts: Rows of the table of trials with at least the columns trial_id, study, attempt, outcome and
            finished_at. Ties go to the one that finished last, then to the first study by name.

    Returns:
        The chosen rows, in the order in which they stood.
    """
    if attempts.num_rows < 2 or _unique(attempts["trial_id"]):
        return attempts
    keys = attempts.select(["trial_id", "study", "attempt", "finished_at"]).append_column(
        "ok", pc.cast(pc.fill_null(pc.equal(attempts["outcome"], "ok"), False), pa.int8())
    )
    order = pc.sort_indices(
        keys,
        sort_keys=[
            ("trial_id", "ascending"),
            ("ok", "descending"),
            ("attempt", "descending"),
            ("finished_at", "descending"),
            ("study", "ascending"),
        ],
    )
    ids = keys["trial_id"].take(order).combine_chunks()
    first = np.ones(len(ids), dtype=bool)
    first[1:] = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1)).to_numpy(zero_copy_only=False)
    return attempts.take(pa.array(np.sort(order.to_numpy()[first])))


def next_attempts(attempts: pa.Table) -> dict[str, int]:
    """The number of the next attempt of every trial, from the columns trial_id and attempt."""
    last = attempts.group_by("trial_id").aggregate([("attempt", "max")])
    numbers = last["attempt_max"].to_pylist()
    return {i: n + 1 for i, n in zip(last["trial_id"].to_pylist(), numbers, strict=True)}


def has_ended(rows: pa.Table) -> pa.ChunkedArray:
    """Whether each trial needs no more training: its outcome is one of `analysis.schema.FINAL`."""
    return pc.is_in(rows["outcome"], pa.array(FINAL))


def was_interrupted(rows: pa.Table) -> pa.ChunkedArray:
    """Whether a user stopped each trial, from the columns outcome and error_class."""
    stopped = pc.fill_null(pc.equal(rows["error_class"], INTERRUPTED), False)
    return pc.and_(stopped, pc.invert(has_ended(rows)))


def _read_paths(
    listing: Listing, paths: Sequence[str], columns: Collection[str] | None, wanted: Collection[str] | None
) -> Read:
    """Reads files side by side; a damaged merged file is read from what it replaces, if that is there."""

    def read(path: str) -> Read:
        part, skipped = _rows_of_file(listing.storage, path, columns, wanted)
        if skipped and not part.num_rows and (old := listing.replaced.get(path)):
            more, bad = _read_paths(listing, old, columns, wanted)
            return more, [*skipped, *bad]
        return part, skipped

    results = in_threads(read, paths)
    parts = [empty(TRIALS, columns), *(part for part, _ in results)]
    return pa.concat_tables(parts), [file for _, bad in results for file in bad]


def _rows_of_file(
    storage: Storage, path: str, columns: Collection[str] | None, wanted: Collection[str] | None
) -> Read:
    """The rows of one file, those of the wanted trials alone."""
    if wanted is None:
        return read_files(storage, TRIALS, [path], columns=columns)
    if is_merged(path) and columns is None:  # a hundred columns: look first whether it holds any of them
        ids, skipped = read_files(storage, TRIALS, [path], columns=("trial_id",))
        if skipped or not pc.any(_among(ids, wanted)).as_py():
            return empty(TRIALS, columns), skipped
    wide = None if columns is None else list(dict.fromkeys((*columns, "trial_id")))
    part, skipped = read_files(storage, TRIALS, [path], columns=wide, use_threads=is_merged(path))
    part = part.filter(_among(part, wanted))
    return part if columns is None else part.select(list(columns)), skipped


def _among(part: pa.Table, wanted: Collection[str]) -> pa.ChunkedArray:
    return pc.is_in(part["trial_id"], pa.array(list(wanted), pa.string()))


def _parts_of(storage: Storage, study: str, trial_id: str, columns: Collection[str] | None) -> list[pa.Table]:
    """The rows of one trial in one study's folder: from the merged file, and from files by its name."""
    folder, wanted = f"{study}/trials", frozenset((trial_id,))
    parts: list[pa.Table] = []
    single = {item.name: item for item in _singles_of(storage, folder, trial_id)}
    entry = read_manifest(storage, study).get("trials")
    if entry is not None:
        try:
            part, damaged = _rows_of_file(storage, f"{folder}/{entry.file}", columns, wanted)
        except VanishedError:
            if read_manifest(storage, study).get("trials") != entry:
                raise
            part, damaged = empty(TRIALS, columns), [SkippedFile(path=entry.file, reason="missing")]
        parts.append(part)
        if damaged and not part.num_rows:
            for name in filter(MERGED.fullmatch, entry.replaces):
                with contextlib.suppress(VanishedError):
                    parts.append(_rows_of_file(storage, f"{folder}/{name}", columns, wanted)[0])
        else:  # a file that was merged and is not deleted yet would be read twice
            single = {name: i for name, i in single.items() if entry.replaces.get(name) != i.size}
    return [*parts, *(_rows_of_file(storage, i.path, columns, wanted)[0] for i in single.values())]


def _singles_of(storage: Storage, folder: str, trial_id: str) -> list[Item]:
    """The files of one trial's attempts, by their names."""
    found: list[Item] = []
    first = 0
    while True:
        names = [f"{folder}/{trial_id}-a{n}.parquet" for n in range(first, first + ATTEMPTS_PROBED)]
        there = [item for item in storage.look_at(names) if item.kind == "file"]
        found += there
        first += ATTEMPTS_PROBED
        if not there:
            return found


def _unique(ids: pa.ChunkedArray) -> bool:
    return pc.count_distinct(ids, mode="all").as_py() == len(ids)
