"""Finds and reads the Parquet files of a store; a bad file is set aside with its reason, never fatal.

Local files are read in bulk by DuckDB, grouped by their physical schema. Whenever that fails, and for
object storage, the files are read one at a time by pyarrow, so that the culprit is known by name.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from analysis.errors import StoreError
from analysis.manifest import MERGED, read_manifest
from analysis.schema import SCHEMA_VERSION, TABLES, VERSION_KEY, Table

_MAGIC = b"PAR1"
_TRIAL = re.compile(r"-a\d+\.parquet$")
_FOLDER = re.compile(r"study=(?P<study>[^/]+)/(?P<table>trials|epochs|blocks)/(?P<file>[^/.][^/]*\.parquet)$")


@dataclass(frozen=True, kw_only=True)
class SkippedFile:
    """A file under the store that was left out, and why."""

    path: str
    reason: str


class VanishedError(Exception):
    """A listed file is gone: it was merged into another after the listing. List again."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a store by table, in name order, and the studies its folders name.

    Files that a merged file stands for are left out: see `analysis.manifest`.
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


def read_table(
    listing: Listing, table: Table, *, study: str | None = None, members: Collection[str] = ()
) -> tuple[pa.Table, list[SkippedFile]]:
    """Reads all files of one table into the columns of its schema; a column a file lacks reads as null.

    Args:
        listing: the files of the store.
        table: which table to read.
        study: only the files in this study's folder, and those of its `members` in other folders.
        members: trial ids.

    Raises:
        StoreError: a file was written under a newer schema version than this reader knows.
        VanishedError: a file is gone since it was listed.

    """
    paths: Sequence[str] = listing.files[table.name]
    if study is None:
        return read_files(listing, table, paths)
    own = f"/study={study}/{table.name}/"
    mine, skipped = read_files(listing, table, [p for p in paths if own in p])
    others = [p for p in paths if own not in p and _may_hold(p.rpartition("/")[2], members)]
    if not members or not others:
        return mine, skipped
    shared, more = read_files(listing, table, others)
    shared = shared.filter(pc.is_in(shared["trial_id"], pa.array(sorted(members), pa.string())))
    return pa.concat_tables([mine, shared]), skipped + more


def _may_hold(name: str, members: Collection[str]) -> bool:
    return MERGED.fullmatch(name) is not None or _TRIAL.sub("", name) in members


def read_files(listing: Listing, table: Table, paths: Sequence[str]) -> tuple[pa.Table, list[SkippedFile]]:
    """Reads these files of one table; raises as `read_table` does."""
    if not paths:
        return table.arrow.empty_table(), []
    if listing.local:
        paths, skipped = _whole_files(paths)
        try:
            good, foreign = _read_bulk(table, paths)
            return good, skipped + foreign
        except (duckdb.Error, pa.ArrowException):
            good, bad = _read_each(table, paths, listing.filesystem)
            return good, skipped + bad
    return _read_each(table, paths, listing.filesystem)


def _whole_files(paths: Iterable[str]) -> tuple[list[str], list[SkippedFile]]:
    """Sets aside files whose first or last bytes show that they are torn or not Parquet (40 µs a file)."""
    whole, skipped = [], []
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                head = file.read(4)
                size = file.seek(0, 2)
                file.seek(max(size - 4, 0))
                tail = file.read(4)
        except FileNotFoundError:
            raise VanishedError(path) from None
        except OSError as error:
            skipped.append(SkippedFile(path=path, reason=f"cannot be read: {error.strerror or error}"))
            continue
        if head == _MAGIC and tail == _MAGIC and size > 12:
            whole.append(path)
        else:
            reason = (
                "torn: it does not end as a Parquet file does" if head == _MAGIC else "not a Parquet file"
            )
            skipped.append(SkippedFile(path=path, reason=reason))
    return whole, skipped


def _read_bulk(table: Table, paths: Sequence[str]) -> tuple[pa.Table, list[SkippedFile]]:
    if not paths:
        return table.arrow.empty_table(), []
    connection = connect()
    connection.execute("SET parquet_metadata_cache=true")
    versions = dict(
        connection.execute(
            "SELECT file_name, max(decode(value)) FROM parquet_kv_metadata($files) "
            "WHERE decode(key) = $key GROUP BY file_name",
            {"files": list(paths), "key": VERSION_KEY.decode()},
        ).fetchall()
    )
    skipped = []
    for path in paths:
        if reason := _foreign(path, versions.get(path)):
            skipped.append(SkippedFile(path=path, reason=reason))
    left_out = {file.path for file in skipped}
    own = [path for path in paths if path not in left_out]
    if not own:
        return table.arrow.empty_table(), skipped
    layouts: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path, names, types in connection.execute(
        "SELECT file_name, string_agg(name, chr(0)), string_agg(coalesce(type, ''), chr(0)) "
        "FROM parquet_schema($files) GROUP BY file_name ORDER BY file_name",
        {"files": own},
    ).fetchall():
        layouts[names, types].append(path)
    parts = []
    for (names, _), group in layouts.items():
        have = set(names.split("\0")[1:])
        columns = ", ".join(f'"{c.name}"' if c.name in have else f'NULL AS "{c.name}"' for c in table.columns)
        part = connection.sql(f"SELECT {columns} FROM read_parquet($files)", params={"files": group})
        parts.append(_conform(part.to_arrow_table(), table))
    return pa.concat_tables(parts), skipped


def _read_each(
    table: Table, paths: Sequence[str], filesystem: fs.FileSystem
) -> tuple[pa.Table, list[SkippedFile]]:
    parts, skipped = [table.arrow.empty_table()], []
    for path in paths:
        try:
            with filesystem.open_input_file(path) as source:
                file = pq.ParquetFile(source)
                version = (file.schema_arrow.metadata or {}).get(VERSION_KEY)
                reason = _foreign(path, version.decode(errors="replace") if version else None)
                if reason is None:
                    parts.append(_conform(file.read(use_threads=False), table))
        except FileNotFoundError:
            raise VanishedError(path) from None
        except (pa.ArrowException, OSError, ValueError) as error:
            first_line = str(error).partition("\n")[0]
            reason = f"cannot be read: {first_line[:200]}"
        if reason is not None:
            skipped.append(SkippedFile(path=path, reason=reason))
    return pa.concat_tables(parts), skipped


def _foreign(path: str, version: str | None) -> str | None:
    """Says why a file with this schema version is left out, or None.

    Raises:
        StoreError: the version is newer than this reader.

    """
    if version is None:
        return "foreign: it carries no schema version of this project"
    if not version.isdecimal():
        return f"foreign: its schema version {version!r} is not a number"
    if int(version) > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written under schema version {version}, and this revstudy reads versions up to "
            f"{SCHEMA_VERSION}: update revstudy"
        )
    return None


def _conform(part: pa.Table, table: Table) -> pa.Table:
    arrays = []
    for column in table.columns:
        if column.name in part.column_names:
            arrays.append(pc.cast(part[column.name], column.type))
        else:
            arrays.append(pa.chunked_array([pa.nulls(part.num_rows, column.type)]))
    return pa.Table.from_arrays(arrays, schema=table.arrow)
