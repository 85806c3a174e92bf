"""Reads all files of a table: those of single trials in batches by DuckDB, merged ones by pyarrow.

DuckDB reads a batch of small local files of one layout (see `analysis.store.footers`) ten times as fast as
pyarrow reads them one after another. Where a batch fails, and in object storage, `analysis.store.reading`
reads one file at a time, so that the culprit is known by name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from analysis.schema import Table
from analysis.store.footers import Layout, by_layout
from analysis.store.listing import Listing, SkippedFile, VanishedError, instead_of, is_merged, may_hold
from analysis.store.reading import (
    KEY,
    OddFileError,
    Read,
    check_columns,
    check_version,
    conform,
    empty,
    in_threads,
    read_files,
    with_keys,
)
from analysis.store.storage import Storage

if TYPE_CHECKING:
    import duckdb

BATCH = 1024
"""Files that one query reads: a file that spoils it has only so many others read one at a time with it."""

FEW = 4
"""Below so many files, opening a database takes longer than reading them without."""

MOST_READERS = 4
"""Batches read at a time, at most."""


def connect() -> duckdb.DuckDBPyConnection:
    """An in-memory database with times in UTC, and without the progress bar it would draw over an answer."""
    import duckdb

    connection = duckdb.connect(":memory:")
    connection.execute("SET TimeZone='UTC'; SET enable_progress_bar=false")
    return connection


def table_reader(
    listing: Listing, table: Table, *, study: str | None = None, members: Collection[str] = ()
) -> Callable[[], Read]:
    """Looks at all files of one table, and returns what reads them into the columns of its schema.

    The first part is Python's, and crawls in a thread beside another that is busy with Python; the second is
    DuckDB's, and does not.

    Args:
        listing: The files of the store.
        table: Which table to read.
        study: Only the files in this study's folder, and those of its `members` in other folders.
        members: Trial ids.

    Returns:
        What reads them when it is called.

    Raises:
        StoreError: A file was written under a newer schema version than this reader knows.
        VanishedError: A file is gone since it was listed. What is returned raises it, too.
    """
    paths: Sequence[str] = listing.files[table.name]
    odd = list(listing.odd[table.name])
    if study is None:
        return _with_odd(files_reader(listing, table, paths), odd)
    own = f"/study={study}/{table.name}/"
    others = [p for p in paths if own not in p and members and may_hold(p, members)]
    read_mine = files_reader(listing, table, [p for p in paths if own in p])
    odd = [file for file in odd if own in file.path]
    if not others:
        return _with_odd(read_mine, odd)
    read_others = files_reader(listing, table, others)

    def read() -> Read:
        (mine, skipped), (shared, more) = read_mine(), read_others()
        shared = shared.filter(pc.is_in(shared["trial_id"], pa.array(sorted(members), pa.string())))
        return pa.concat_tables([mine, shared]), [*odd, *skipped, *more]

    return read


def files_reader(
    listing: Listing, table: Table, paths: Sequence[str], *, columns: Collection[str] | None = None
) -> Callable[[], Read]:
    """Return what `table_reader` returns, for these files of one table, and for some of its columns.

    Raises:
        StoreError: A file was written under a newer schema version than this reader knows.
        VanishedError: A file is gone since it was listed. What is returned raises it, too.
    """
    storage = listing.storage
    merged = [path for path in paths if is_merged(path)]
    single = [path for path in paths if not is_merged(path)] if merged else paths
    read_singles = singles_reader(storage, table, single, columns=columns)

    def read() -> Read:
        parts, skipped = [empty(table, columns)], []
        for path in merged:
            # Of large files pyarrow reads several columns at a time, in half of DuckDB's time.
            part, bad = read_files(storage, table, [path], columns=columns, use_threads=True)
            parts.append(part)
            if bad and not part.num_rows and (old := listing.replaced.get(path, ())):
                reason = f"{bad[0].reason}; {instead_of(None, old)}"
                bad = [SkippedFile(path=path, reason=reason)]
                part, more = files_reader(listing, table, old, columns=columns)()
                parts.append(part)
                bad += more
            skipped += bad
        part, bad = read_singles()
        return pa.concat_tables([*parts, part]), [*skipped, *bad]

    return read


def singles_reader(
    storage: Storage, table: Table, paths: Sequence[str], *, columns: Collection[str] | None = None
) -> Callable[[], Read]:
    """Return what `files_reader` returns, for files of single trials alone.

    Raises:
        StoreError: A file was written under a newer schema version than this reader knows.
        VanishedError: A file is gone since it was listed. What is returned raises it, too.
    """
    how = _in_batches if storage.local and len(paths) >= FEW else _one_by_one
    return how(storage, table, paths, columns)


def known_files(listing: Listing, table: Table, paths: Sequence[str]) -> list[str]:
    """Return those of these files that can be read and hold no column that this version does not know.

    Raises:
        VanishedError: A file is gone since it was listed.
    """
    good = set()
    if listing.storage.local:
        for layout, members in by_layout(paths)[0].items():
            if table.types.keys() >= set(layout.columns):
                good.update(members)
    else:
        for path in paths:
            names = _column_names(listing, path)
            if names and table.types.keys() >= names:
                good.add(path)
    return [path for path in paths if path in good]


def _column_names(listing: Listing, path: str) -> set[str]:
    """The columns of a file; none if it cannot be read, which reading it finds out again."""
    try:
        with listing.storage.source(path) as source:
            return set(pq.read_schema(source).names)
    except FileNotFoundError:
        raise VanishedError(path) from None
    except Exception:  # what a parser raises on hostile bytes is without end
        return set()


def _with_odd(read: Callable[[], Read], odd: list[SkippedFile]) -> Callable[[], Read]:
    if not odd:
        return read

    def both() -> Read:
        part, skipped = read()
        return part, [*odd, *skipped]

    return both


def _one_by_one(
    storage: Storage, table: Table, paths: Sequence[str], columns: Collection[str] | None
) -> Callable[[], Read]:
    def read_one(path: str) -> Read:
        return read_files(storage, table, [path], columns=columns)

    def read() -> Read:
        results = in_threads(read_one, paths)
        parts = [empty(table, columns), *(part for part, _ in results)]
        return pa.concat_tables(parts), [file for _, bad in results for file in bad]

    return read


def _in_batches(
    storage: Storage, table: Table, paths: Sequence[str], columns: Collection[str] | None
) -> Callable[[], Read]:
    layouts, skipped = by_layout(paths)
    groups: list[tuple[Layout, list[str]]] = []
    for layout, members in layouts.items():
        try:
            check_version(members[0], layout.version)
            check_columns(layout.columns)
        except OddFileError as error:
            skipped += [SkippedFile(path=path, reason=str(error)) for path in members]
            continue
        starts = range(0, len(members), BATCH)
        groups += [(layout, members[start : start + BATCH]) for start in starts]
    # One thread to a batch: DuckDB's own threads take turns where files hold a row each.
    single = len(groups) > 1

    def read_group(group: tuple[Layout, list[str]]) -> Read:
        layout, members = group
        # Whatever DuckDB, Arrow or a rule of ours has against a batch, reading its files one at a time tells
        # which file it was.
        with contextlib.suppress(Exception):
            return _read_batch(table, layout, members, columns, single_thread=single), []
        return read_files(storage, table, members, columns=columns)

    def read() -> Read:
        with ThreadPoolExecutor(min(MOST_READERS, os.cpu_count() or 1)) as pool:
            results = list(pool.map(read_group, groups))
        parts = [empty(table, columns), *(part for part, _ in results)]
        return pa.concat_tables(parts), [*skipped, *(file for _, bad in results for file in bad)]

    return read


def _read_batch(
    table: Table,
    layout: Layout,
    paths: Sequence[str],
    columns: Collection[str] | None,
    *,
    single_thread: bool,
) -> pa.Table:
    if any(character in path for path in paths for character in "*?["):
        raise OddFileError("DuckDB would take the path for a pattern")
    # A column of another type must be seen whatever is asked for: the file may have to be left out.
    odd = any(str(table.types.get(n, t)) != t for n, t in zip(layout.columns, layout.types, strict=True))
    names = None if columns is None or odd else {*columns, *KEY}
    connection = connect()
    connection.execute("SET enable_external_file_cache=false")  # each file is read once
    if single_thread:
        connection.execute("SET threads=1")
    have = set(layout.columns)
    wanted = ", ".join(
        f'"{c.name}"' if c.name in have else f'NULL AS "{c.name}"'
        for c in table.columns
        if names is None or c.name in names
    )
    part = connection.sql(
        f"SELECT {wanted} FROM read_parquet($files, hive_partitioning=false)", params={"files": list(paths)}
    )
    rows, _ = with_keys(conform(part.to_arrow_table(), table, names), merged=False)
    return rows if columns is None else rows.select(list(columns))
