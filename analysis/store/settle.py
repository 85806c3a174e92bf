"""Ends what a merge began: deletes the files whose rows a merged file holds, once that is proved.

No file is deleted before the merged file that stands for it has been opened, and its number of rows and the
(trial, attempt) keys of its rows have been compared with the file's own. A merged file that is damaged gives
way to the files that it should replace, if they are all there; else nothing is changed and it is said.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.errors import StoreError
from analysis.schema import TABLES, Table
from analysis.store.bulk import singles_reader
from analysis.store.listing import VanishedError, is_merged
from analysis.store.manifest import Entry, Manifest, read_manifest, write_manifest
from analysis.store.reading import OddFileError, read_file, why
from analysis.store.storage import Storage

Progress = Callable[[str], None]
Keys = Counter[tuple[str | None, int | None]]
"""How many rows there are of each (trial, attempt)."""

ORPHAN_AGE_S = 3600.0
"""An unnamed merged file in object storage that is younger may be that of a process that lost its lease."""

_KEYS = ("trial_id", "attempt")
_PARTIAL = re.compile(r"\.merging-[0-9a-f]{16}|\.compact-[0-9a-f]{16}\.parquet\.[0-9a-f]{16}")


@dataclass(frozen=True, kw_only=True)
class _Place:
    """One table in a study's folder."""

    storage: Storage
    study: str
    table: Table

    @property
    def folder(self) -> str:
        return f"{self.study}/{self.table.name}"

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def names(self) -> dict[str, int]:
        """The names of its Parquet files, with their sizes in bytes."""
        items = self.storage.items(self.folder)
        return {
            item.name: item.size
            for item in items
            if item.kind == "file" and item.name.endswith(".parquet") and not item.name.startswith(".")
        }


def settle(storage: Storage, study: str, progress: Progress) -> None:
    """Deletes what the manifest of a study's folder replaces, and what unfinished merges left.

    Args:
        storage: Where the store is.
        study: The path of the study's folder.
        progress: Told each step before it is taken.

    Raises:
        StoreError: A merged file is damaged, or no manifest names it, and no other file holds its rows.
            Nothing was deleted.
        OSError: The folder cannot be read or written.
    """
    manifest = read_manifest(storage, study)
    places = [_Place(storage=storage, study=study, table=table) for table in TABLES.values()]
    mended: Manifest = {}
    for place in places:
        entry = manifest.get(place.table.name)
        entry = _adopted(place) if entry is None else _mended(place, entry)
        if entry is not None:
            mended[place.table.name] = entry
    if mended != manifest:
        progress("mend the manifest")
        write_manifest(storage, study, mended)
    for place in places:
        if place.table.name in mended:
            _delete_replaced(place, mended[place.table.name], progress)
    if any(entry.replaces for entry in mended.values()):
        # What was not deleted, since the merged file does not hold it, counts again from here on.
        progress("clear the manifest")
        mended = {table: replace(entry, replaces={}) for table, entry in mended.items()}
        write_manifest(storage, study, mended)
    for place in places:
        _delete_orphans(place, mended.get(place.table.name), progress)


def count_keys(storage: Storage, path: str) -> Keys:
    """Counts the rows of each (trial, attempt) in a Parquet file, a batch at a time.

    Returns:
        How many rows each (trial, attempt) has.

    Raises:
        FileNotFoundError: The file is not there.
        OddFileError: It cannot be read to its end.
    """
    keys: Keys = Counter()
    try:
        with storage.source(path) as source, pq.ParquetFile(source) as file:
            for batch in file.iter_batches(columns=["trial_id", "attempt"]):
                keys.update(keys_of(pa.Table.from_batches([batch])))
            rows = file.metadata.num_rows
    except FileNotFoundError:
        raise
    except Exception as error:  # what a parser raises on hostile bytes is without end
        raise OddFileError(why(error)) from None
    if rows != keys.total():
        raise OddFileError(f"its footer tells of {rows:,} rows, and it holds {keys.total():,}")
    return keys


def keys_of(rows: pa.Table) -> Keys:
    """Counts the rows of each (trial, attempt)."""
    counted = rows.group_by(["trial_id", "attempt"]).aggregate([([], "count_all")])
    columns = (counted[name].to_pylist() for name in ("trial_id", "attempt", "count_all"))
    return Counter({(trial, attempt): n for trial, attempt, n in zip(*columns, strict=True)})


def _mended(place: _Place, entry: Entry) -> Entry | None:
    """The entry, if its merged file is whole; else what counted before, if all of that is there.

    Returns:
        None where only files of single trials counted before.

    Raises:
        StoreError: Neither is there. Nothing was deleted.
    """
    if _held_by(place, entry) is not None:
        return entry
    still = _still_there(place, entry)
    before = [name for name in still if is_merged(name)]
    keys = _keys_in(place, before[0]) if before else Counter()
    if not still or len(still) < len(entry.replaces) or keys is None:
        raise StoreError(
            f"the merged file {place.path(entry.file)} is missing or damaged, and not all of its "
            f"{entry.rows:,} rows are in other files: nothing was deleted. Bring the file back from a copy"
        )
    return Entry(file=before[0], rows=keys.total()) if before else None


def _adopted(place: _Place) -> Entry | None:
    """An entry for a merged file that no manifest names and whose rows no other file holds."""
    lost = [name for name in place.names() if is_merged(name) and not _is_covered(place, name, None)]
    if not lost:
        return None
    keys = _keys_in(place, lost[0])
    if len(lost) > 1 or keys is None:
        raise StoreError(
            f"no manifest names the merged files {', '.join(sorted(lost))} in {place.folder}, and no other "
            "file holds their rows: nothing was deleted. Bring the manifest compact.json back from a copy"
        )
    sizes = place.names()
    single = [name for name in sizes if not is_merged(name)]
    held = set(single) - _not_held(place, single, keys)
    return Entry(file=lost[0], rows=keys.total(), replaces={name: sizes[name] for name in sorted(held)})


def _delete_replaced(place: _Place, entry: Entry, progress: Progress) -> None:
    """Deletes the files whose rows the merged file holds; those of which that is not so stay."""
    still = _still_there(place, entry)
    if not still:
        return
    held = _held_by(place, entry)
    if held is None:
        raise StoreError(f"the merged file {place.path(entry.file)} cannot be read: nothing was deleted")
    kept = _not_held(place, still, held)
    place.storage.confirm(place.path(entry.file))
    for name in still:
        if name not in kept:
            progress(f"delete {place.table.name}/{name}")
            place.storage.delete(place.path(name))


def _delete_orphans(place: _Place, entry: Entry | None, progress: Progress) -> None:
    """Deletes parts of files, and merged files that no manifest names if other files hold all their rows."""
    for item in place.storage.items(place.folder):
        if _PARTIAL.fullmatch(item.name):
            progress(f"delete {place.table.name}/{item.name}")
            place.storage.delete(item.path)
        if item.kind != "file" or not is_merged(item.name) or (entry and item.name == entry.file):
            continue
        if not place.storage.local and time.time() - item.changed_ns / 1e9 < ORPHAN_AGE_S:
            continue
        if _keys_in(place, item.name) is None:
            progress(f"leave {place.table.name}/{item.name}, which is damaged and which no manifest names")
        elif _is_covered(place, item.name, entry):
            progress(f"delete {place.table.name}/{item.name}")
            place.storage.delete(item.path)
        else:
            raise StoreError(
                f"the merged file {item.path} holds rows that no other file holds, and the manifest does not "
                "name it: it was not deleted. Move it to a store of its own to read it"
            )


def _still_there(place: _Place, entry: Entry) -> list[str]:
    """The files that an entry replaces and that are there unchanged: of the size that they had."""
    sizes = place.names()
    return [name for name, size in entry.replaces.items() if sizes.get(name) == size]


def _held_by(place: _Place, entry: Entry) -> Keys | None:
    """The keys of the merged file that an entry names; None if it is missing, damaged or another one."""
    keys = _keys_in(place, entry.file)
    return keys if keys is not None and keys.total() == entry.rows else None


def _keys_in(place: _Place, name: str) -> Keys | None:
    try:
        return count_keys(place.storage, place.path(name))
    except (FileNotFoundError, OddFileError):
        return None


def _is_covered(place: _Place, name: str, entry: Entry | None) -> bool:
    """Whether the files that count hold every row of a merged file that does not count."""
    own = _keys_in(place, name)
    if own is None:
        return True  # nothing can be said of it, and nothing is done with it
    others = Counter() if entry is None else _held_by(place, entry) or Counter()
    if _within(own, others):
        return True
    single = [place.path(n) for n in place.names() if not is_merged(n)]
    rows, _ = singles_reader(place.storage, place.table, single, columns=_KEYS)()
    others.update(keys_of(rows))
    return _within(own, others)


def _not_held(place: _Place, names: Sequence[str], held: Keys) -> set[str]:
    """Those of these files that cannot be read, or that have rows which are not among the held ones."""
    single = [place.path(name) for name in names if not is_merged(name)]
    rows, skipped = singles_reader(place.storage, place.table, single, columns=_KEYS)()
    together, unreadable = keys_of(rows), bool(skipped)
    for name in filter(is_merged, names):
        keys = _keys_in(place, name)
        unreadable |= keys is None
        together.update(keys or {})
    if not unreadable and _within(together, held):
        return set()
    return {name for name in names if not _is_held(place, name, held)}


def _is_held(place: _Place, name: str, held: Keys) -> bool:
    """Whether one file can be read, and all of its rows are among the held ones."""
    if is_merged(name):
        keys = _keys_in(place, name)
        return keys is not None and _within(keys, held)
    try:
        rows, _ = read_file(place.storage, place.table, place.path(name), columns=_KEYS)
    except (OddFileError, VanishedError):
        return False
    return _within(keys_of(rows), held)


def _within(keys: Keys, others: Keys) -> bool:
    """Whether there are at most as many rows of each key as among the others."""
    return all(n <= others[key] for key, n in keys.items())
