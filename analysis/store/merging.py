"""Writes the rows of many files of one table into one file, and reads back what it wrote.

Trials are few and go at once. Of epochs and blocks there may be hundreds of millions: they go a range of
trial ids at a time, so that a merge needs memory for one range, however large the table is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from analysis.errors import StoreError
from analysis.schema import TABLES, Table
from analysis.store.bulk import connect, files_reader, known_files
from analysis.store.listing import FILE, Listing, is_merged
from analysis.store.once import without_copies
from analysis.store.reading import conform

PART_BYTES = 40_000_000
"""Size of the files of single trials that make a range: a few million rows at most."""
PART_ROWS = 1_000_000
"""Rows of an earlier merged file that make a range."""
ROW_GROUP = 65_536
ORDER = {
    "trials": ("started_at", "trial_id", "attempt"),  # as a store lists them: see analysis.store
    "epochs": ("trial_id", "attempt", "epoch"),
    "blocks": ("trial_id", "attempt", "epoch", "block", "name"),
}
Range = tuple[str | None, str | None]
"""The first trial id, and the one before which it ends; None for no bound."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The files of one table that a merge takes, with their sizes; `merged` is an earlier merged one."""

    table: Table
    sizes: dict[str, int]
    merged: str | None

    @property
    def single(self) -> list[str]:
        """Those of single trials."""
        return [path for path in self.sizes if path != self.merged]


def sources(listing: Listing, folder: str, table: Table) -> Sources:
    """Return what there is to merge in a study's folder; files with columns this version does not know stay
    out, and so do the curves of an attempt whose row is still to come.

    A writer writes the row last. One that is killed before leaves curves without a row, and the same attempt
    is then made and written once more: in a merged file, its curves would be there twice.

    Raises:
        StoreError: The earlier merged file cannot be read, or a newer version wrote it.
    """
    prefix = f"{folder}/{table.name}/"
    paths = [path for path in listing.files[table.name] if path.startswith(prefix)]
    merged = next((path for path in paths if is_merged(path)), None)
    known = known_files(listing, table, paths)
    if merged is not None and merged not in known:
        raise StoreError(
            f"{merged} cannot be read, or a newer revstudy wrote it: nothing was changed. "
            "Update revstudy, or bring the file back"
        )
    if table is not TABLES["trials"]:
        rows = {*_attempts_with_row(listing, folder), None}
        known = [path for path in known if _attempt_of(path) in rows]
    return Sources(table=table, sizes={path: listing.sizes[path] for path in known}, merged=merged)


def _attempts_with_row(listing: Listing, folder: str) -> set[str | None]:
    """The attempts that a study's folder has the row of, each as the name of its file."""
    paths = [path for path in listing.files["trials"] if path.startswith(f"{folder}/trials/")]
    merged = [path for path in paths if is_merged(path)]
    rows, _ = files_reader(listing, TABLES["trials"], merged, columns=("trial_id", "attempt"))()
    keys = zip(rows["trial_id"].to_pylist(), rows["attempt"].to_pylist(), strict=True)
    return {_attempt_of(path) for path in paths} | {f"{trial}-a{attempt}.parquet" for trial, attempt in keys}


def _attempt_of(path: str) -> str | None:
    """The name of the file of an attempt; None for a file that is named otherwise."""
    name = path.rpartition("/")[2]
    return name if FILE.fullmatch(name) else None


def merge_files(
    listing: Listing, of: Sources, target: str, stream: Any, progress: Callable[[str], None]
) -> tuple[list[str], Callable[[], int]]:
    """Writes the rows of all sources into a stream, a range at a time; of a row that was copied, one.

    Returns:
        The files whose rows were written; torn ones are not among them. And a function that reads `target`
        back once it is in place: it returns the number of rows, or raises `StoreError` if one is another.

    """
    taken: list[str] = []
    digests: list[tuple[int, int]] = []
    with pq.ParquetWriter(stream, of.table.arrow, compression="zstd") as writer:
        single, ranges = of.single, list(_ranges(listing, of))
        for number, bounds in enumerate(ranges, start=1):
            progress(f"write {of.table.name}, part {number} of {len(ranges)}")
            paths = [path for path in single if _holds(bounds, path)]
            rows, skipped = files_reader(listing, of.table, paths)()
            taken += sorted(set(paths) - {file.path for file in skipped})
            if of.merged is not None:
                rows = pa.concat_tables([_rows_between(listing, of.table, of.merged, bounds), rows])
            if rows.num_rows:
                order = ORDER[of.table.name]
                rows = without_copies(rows.sort_by([(name, "ascending") for name in order]), order)
                writer.write_table(rows, row_group_size=ROW_GROUP)
                digests.append(_digest(rows))
    if of.merged is not None:
        taken.append(of.merged)
    return taken, lambda: _check(listing, of.table, target, digests)


def _ranges(listing: Listing, of: Sources) -> Iterator[Range]:
    """Ranges of trial ids, which are hexadecimal hashes and so spread evenly."""
    parts = 1
    if of.table is not TABLES["trials"]:
        rows = 0
        if of.merged is not None:
            with listing.storage.source(of.merged) as source:
                rows = pq.read_metadata(source).num_rows
        parts = 1 + sum(of.sizes[path] for path in of.single) // PART_BYTES + rows // PART_ROWS
    parts = min(parts, 4096)
    bounds = [None, *(f"{65_536 * part // parts:04x}" for part in range(1, parts)), None]
    return pairwise(bounds)


def _holds(bounds: Range, path: str) -> bool:
    """Whether the trial in the name of a file is in the range."""
    first, end = bounds
    name = path.rpartition("/")[2]
    match = FILE.fullmatch(name)
    trial = name if match is None else match["trial"]
    return (first is None or trial >= first) and (end is None or trial < end)


def _rows_between(listing: Listing, table: Table, path: str, bounds: Range) -> pa.Table:
    """The rows of a merged file that belong to the trials of a range; those without a trial to the first."""
    first, end = bounds
    trial, condition = pc.field("trial_id"), None
    if first is not None:
        condition = trial >= first
    if end is not None:
        before = trial < end if first is not None else (trial < end) | trial.is_null()
        condition = before if condition is None else condition & before
    found = pq.read_table(path, filesystem=listing.storage.filesystem, filters=condition, partitioning=None)
    return conform(found, table)


def _digest(rows: pa.Table) -> tuple[int, int]:
    """The number of rows, and a hash of every value at its place; NaN is the same as NaN."""
    connection = connect()
    connection.register("rows", rows)
    columns = ", ".join(f'"{name}"' for name in rows.column_names)
    found = connection.execute(
        f"SELECT count(*), coalesce(bit_xor(hash(place, {columns})), 0) "
        "FROM (SELECT row_number() OVER () AS place, * FROM rows)"
    ).fetchone()
    return found or (0, 0)


def _check(listing: Listing, table: Table, path: str, digests: Sequence[tuple[int, int]]) -> int:
    with listing.storage.source(path) as source:
        file, group, total = pq.ParquetFile(source), 0, 0
        for digest in digests:
            end = group + -(-digest[0] // ROW_GROUP)
            part = file.read_row_groups(range(group, min(end, file.num_row_groups)))
            if _digest(conform(part, table)) != digest:
                raise StoreError(f"{path} does not read back as it was written; nothing was changed")
            group, total = end, total + digest[0]
        if file.metadata.num_rows != total:
            raise StoreError(f"{path} does not read back as it was written; nothing was changed")
        return total
