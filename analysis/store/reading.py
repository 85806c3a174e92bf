"""Finds and reads the Parquet files of a store; a bad file is set aside with its reason, never fatal.

Local files of single trials are read in bulk by DuckDB, in batches of one layout (see
`analysis.store.footers`). Where a batch fails, and for object storage, files are read one at a time by
pyarrow, so that the culprit is known by name. So are merged files, one of which holds a whole table.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from analysis.errors import StoreError
from analysis.schema import TABLES, VERSION_KEY, Table
from analysis.store.footers import Layout, SkippedFile, VanishedError, by_layout, foreign
from analysis.store.manifest import MERGED, read_manifest

BATCH = 1024
"""Files that one query reads: a file that spoils it has only so many others read one at a time with it."""

MOST_READERS = 4
"""Batches read at a time, at most."""

TRIAL = re.compile(r"-a\d+\.parquet$")
"""What follows the trial's id in the name of a file."""
Read = tuple[pa.Table, list[SkippedFile]]
"""The rows that were read, and the files that were not."""

_FOLDER = re.compile(r"study=(?P<study>[^/]+)/(?P<table>trials|epochs|blocks)/(?P<file>[^/.][^/]*\.parquet)$")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a store by table, in name order, and the studies its folders name.

    Files that a merged file stands for are left out: see `analysis.store.manifest`.
    """

    filesystem: fs.FileSystem
    root: str
    local: bool
    files: dict[str, tuple[str, ...]]
    studies: tuple[str, ...]

    def members(self, study: str) -> frozenset[str]:
        """Trial ids that ``study.json`` lists: a study owns trials that an earlier one trained, too."""
        try:
            with self.filesystem.open_input_file(f"{self.root}/study={study}/study.json") as file:
                ids = json.loads(file.read()).get("trial_ids", [])
        except (OSError, ValueError, AttributeError):
            return frozenset()
        return frozenset(i for i in ids if isinstance(i, str)) if isinstance(ids, list) else frozenset()


def connect() -> duckdb.DuckDBPyConnection:
    """An in-memory database with times in UTC, and without the progress bar it would draw over an answer."""
    connection = duckdb.connect(":memory:")
    connection.execute("SET TimeZone='UTC'; SET enable_progress_bar=false")
    return connection


def list_files(location: str | Path) -> Listing:
    """Lists the store at a local path or at a URI that `pyarrow.fs` understands, such as ``s3://bucket/x``.

    Raises:
        StoreError: nothing is there, it is not a folder, or it may not be read.

    """
    text = str(location)
    remote = re.match(r"[a-z][a-z0-9+.-]+://", text) is not None
    try:
        if remote:
            filesystem, root = fs.FileSystem.from_uri(text)
        else:
            filesystem, root = fs.LocalFileSystem(), str(Path(text).absolute())
        kind = filesystem.get_file_info(root).type
        if kind == fs.FileType.NotFound:
            raise StoreError(
                f"no store at {text!r}: the folder does not exist. "
                f"`revstudy run STUDY --store {text}` writes one"
            )
        if kind != fs.FileType.Directory:
            raise StoreError(f"the store must be a folder, but {text!r} is a file")
        found = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    except (OSError, pa.ArrowInvalid, NotImplementedError) as error:
        raise StoreError(f"cannot read the store at {text!r}: {error}") from None
    files: dict[str, dict[str, int]] = {name: {} for name in TABLES}
    studies = set()
    for info in found:
        relative = info.path[len(root) :].lstrip("/")
        if info.type == fs.FileType.Directory:
            if relative.startswith("study=") and "/" not in relative:
                studies.add(relative.removeprefix("study="))
        elif (match := _FOLDER.fullmatch(relative)) and not MERGED.fullmatch(match["file"]):
            files[match["table"]][info.path] = info.size
    for study in sorted(studies):  # after the listing: see analysis.manifest
        folder = f"{root}/study={study}"
        for table, entry in read_manifest(filesystem, folder).items():
            for name, size in entry.replaces.items():
                if files[table].get(path := f"{folder}/{table}/{name}") == size:
                    del files[table][path]
            files[table][f"{folder}/{table}/{entry.file}"] = 0
    return Listing(
        filesystem=filesystem,
        root=root,
        local=not remote,
        files={name: tuple(sorted(paths)) for name, paths in files.items()},
        studies=tuple(sorted(studies)),
    )


def table_reader(
    listing: Listing, table: Table, *, study: str | None = None, members: Collection[str] = ()
) -> Callable[[], Read]:
    """Looks at all files of one table, and returns what reads them into the columns of its schema.

    A column that a file lacks reads as null. The first part is Python's, and crawls in a thread beside
    another that is busy with Python; the second is DuckDB's, and does not.

    Args:
        listing: the files of the store.
        table: which table to read.
        study: only the files in this study's folder, and those of its `members` in other folders.
        members: trial ids.

    Raises:
        StoreError: a file was written under a newer schema version than this reader knows.
        VanishedError: a file is gone since it was listed. What is returned raises it, too.

    """
    paths: Sequence[str] = listing.files[table.name]
    if study is None:
        return files_reader(listing, table, paths)
    own = f"/study={study}/{table.name}/"
    others = [p for p in paths if own not in p and _may_hold(p.rpartition("/")[2], members)]
    read_mine = files_reader(listing, table, [p for p in paths if own in p])
    if not members or not others:
        return read_mine
    read_others = files_reader(listing, table, others)

    def read() -> Read:
        (mine, skipped), (shared, more) = read_mine(), read_others()
        shared = shared.filter(pc.is_in(shared["trial_id"], pa.array(sorted(members), pa.string())))
        return pa.concat_tables([mine, shared]), skipped + more

    return read


def _may_hold(name: str, members: Collection[str]) -> bool:
    return MERGED.fullmatch(name) is not None or TRIAL.sub("", name) in members


def known_files(listing: Listing, table: Table, paths: Sequence[str]) -> list[str]:
    """Those of these files that can be read and hold no column that this version does not know.

    Raises:
        VanishedError: a file is gone since it was listed.

    """
    known = {column.name for column in table.columns}
    if listing.local:
        layouts, _ = by_layout(paths)
        good = {p for layout, members in layouts.items() if known.issuperset(layout.columns) for p in members}
        return [path for path in paths if path in good]
    return [path for path in paths if known.issuperset(_column_names(listing.filesystem, path) or {""})]


def _column_names(filesystem: fs.FileSystem, path: str) -> set[str]:
    """The columns of a file; none if it cannot be read, which reading it finds out again."""
    try:
        with filesystem.open_input_file(path) as source:
            return set(pq.read_schema(source).names)
    except FileNotFoundError:
        raise VanishedError(path) from None
    except (OSError, pa.ArrowException):
        return set()


def read_files(listing: Listing, table: Table, paths: Sequence[str]) -> Read:
    """Reads these files of one table; raises as `table_reader` does."""
    return files_reader(listing, table, paths)()


def files_reader(listing: Listing, table: Table, paths: Sequence[str]) -> Callable[[], Read]:
    """As `table_reader`, for these files of one table."""
    if not paths:
        return lambda: (table.arrow.empty_table(), [])
    if not listing.local:
        return lambda: _read_each(table, paths, listing.filesystem)
    merged = [path for path in paths if MERGED.fullmatch(path.rpartition("/")[2])]
    layouts, skipped = by_layout([path for path in paths if path not in merged])
    groups: list[tuple[Layout, list[str]]] = []
    for layout, members in layouts.items():
        if reason := foreign(members[0], layout.version):
            skipped += [SkippedFile(path=path, reason=reason) for path in members]
        else:
            starts = range(0, len(members), BATCH)
            groups += [(layout, members[start : start + BATCH]) for start in starts]
    # One thread to a batch: DuckDB's own threads take turns where files hold a row each.
    single = len(groups) > 1

    def read_group(group: tuple[Layout, list[str]]) -> Read:
        layout, members = group
        try:
            return _read_bulk(table, layout, members, single_thread=single), []
        except (duckdb.Error, pa.ArrowException):
            return _read_each(table, members, listing.filesystem)

    def read() -> Read:
        # Of large files pyarrow reads several columns at a time, in half of DuckDB's time.
        results = [_read_each(table, merged, listing.filesystem, use_threads=True)] if merged else []
        with ThreadPoolExecutor(min(MOST_READERS, os.cpu_count() or 1)) as pool:
            results += pool.map(read_group, groups)
        parts = [table.arrow.empty_table(), *(part for part, _ in results)]
        return pa.concat_tables(parts), [*skipped, *(file for _, bad in results for file in bad)]

    return read


def _read_bulk(table: Table, layout: Layout, paths: Sequence[str], *, single_thread: bool) -> pa.Table:
    if any(character in path for path in paths for character in "*?["):
        raise pa.ArrowInvalid("DuckDB would take the path for a pattern")
    connection = connect()
    connection.execute("SET enable_external_file_cache=false")  # each file is read once
    if single_thread:
        connection.execute("SET threads=1")
    have = set(layout.columns)
    columns = ", ".join(f'"{c.name}"' if c.name in have else f'NULL AS "{c.name}"' for c in table.columns)
    part = connection.sql(
        f"SELECT {columns} FROM read_parquet($files, hive_partitioning=false)", params={"files": list(paths)}
    )
    return conform(part.to_arrow_table(), table)


def _read_each(
    table: Table, paths: Sequence[str], filesystem: fs.FileSystem, *, use_threads: bool = False
) -> Read:
    parts, skipped = [table.arrow.empty_table()], []
    for path in paths:
        try:
            with filesystem.open_input_file(path) as source:
                file = pq.ParquetFile(source)
                version = (file.schema_arrow.metadata or {}).get(VERSION_KEY)
                reason = foreign(path, version.decode(errors="replace") if version else None)
                if reason is None:
                    parts.append(conform(file.read(use_threads=use_threads), table))
        except FileNotFoundError:
            raise VanishedError(path) from None
        except (pa.ArrowException, OSError, ValueError) as error:
            first_line = str(error).partition("\n")[0]
            reason = f"cannot be read: {first_line[:200]}"
        if reason is not None:
            skipped.append(SkippedFile(path=path, reason=reason))
    return pa.concat_tables(parts), skipped


def conform(part: pa.Table, table: Table) -> pa.Table:
    """The columns of the table's schema; one that the part lacks reads as null."""
    arrays = []
    for column in table.columns:
        if column.name in part.column_names:
            arrays.append(pc.cast(part[column.name], column.type))
        else:
            arrays.append(pa.chunked_array([pa.nulls(part.num_rows, column.type)]))
    return pa.Table.from_arrays(arrays, schema=table.arrow)
