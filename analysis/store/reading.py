"""Reads one Parquet file of a store into the columns of its table, or says why it is left out.

These rules hold for every reader of a store, however it reads:

- a file that is no regular file, torn, not Parquet, or without this project's schema version is left out;
- a file in which a column's name stands twice is left out;
- a column of another type is cast; where a value cannot be cast, the file is left out;
- a column that the file lacks reads as null, and one that the schema lacks is not read;
- a file with a row that has no trial id, study or attempt is left out; of a merged file only such rows are;
- a file of a newer schema version ends the reading: it could be misread.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from analysis.errors import StoreError
from analysis.schema import SCHEMA_VERSION, VERSION_KEY, Table
from analysis.store.listing import SkippedFile, VanishedError, is_merged
from analysis.store.storage import Storage

KEY = ("trial_id", "study", "attempt")
"""The columns that every row of every table must have."""

READERS = 8
"""Threads that read files side by side, where that is worth it."""

T = TypeVar("T")
_MAGIC = b"PAR1"
_VERSION = re.compile(r"[0-9]{1,4}")

Read = tuple[pa.Table, list[SkippedFile]]
"""The rows that were read, and the files that were not."""


class OddFileError(Exception):
    """A file that cannot be a file of the store; the text is the reason."""


def read_files(
    storage: Storage,
    table: Table,
    paths: Sequence[str],
    *,
    columns: Collection[str] | None = None,
    use_threads: bool = False,
) -> Read:
    """Reads files of one table one after another.

    Args:
        storage: Where they are.
        table: Which table they belong to.
        paths: The files.
        columns: The columns to read; all without it.
        use_threads: Read several columns at a time: worth it for large files.

    Returns:
        The rows of all files that can be read, and the others with the reason.

    Raises:
        StoreError: A file was written under a newer schema version.
        VanishedError: A file is gone since it was listed.
    """
    parts, skipped = [empty(table, columns)], []
    for path in paths:
        try:
            part, reason = read_file(storage, table, path, columns=columns, use_threads=use_threads)
            parts.append(part)
        except OddFileError as error:
            reason = str(error)
        if reason:
            skipped.append(SkippedFile(path=path, reason=reason))
    return pa.concat_tables(parts), skipped


def in_threads(read: Callable[[str], T], paths: Sequence[str]) -> list[T]:
    """What `read` makes of each path, in their order; where there are many, several threads share them."""
    if len(paths) <= 2 * READERS:
        return [read(path) for path in paths]
    size = math.ceil(len(paths) / READERS)
    shares = [paths[start : start + size] for start in range(0, len(paths), size)]
    with ThreadPoolExecutor(READERS) as pool:
        return [found for share in pool.map(lambda few: [read(p) for p in few], shares) for found in share]


def read_file(
    storage: Storage,
    table: Table,
    path: str,
    *,
    columns: Collection[str] | None = None,
    use_threads: bool = False,
) -> tuple[pa.Table, str]:
    """Reads one file.

    Returns:
        Its rows, and what was left out of it: an empty text but for a merged file with rows without a key.

    Raises:
        OddFileError: It is left out.
        StoreError: It was written under a newer schema version.
        VanishedError: It is gone.
    """
    try:
        with storage.source(path) as source:
            _look_at_ends(source)
            with pq.ParquetFile(source, pre_buffer=False) as file:
                schema = file.schema_arrow
                check_version(path, (schema.metadata or {}).get(VERSION_KEY))
                check_columns(schema.names)
                odd = any(_differs(table, n, t) for n, t in zip(schema.names, schema.types, strict=True))
                names = None if columns is None or odd else {*columns, *KEY}
                wanted = [n for n in schema.names if n in table.types and (names is None or n in names)]
                part = conform(file.read(columns=wanted, use_threads=use_threads), table, names)
    except (OddFileError, StoreError):
        raise
    except FileNotFoundError:
        raise VanishedError(path) from None
    except Exception as error:  # what a parser raises on hostile bytes is without end
        raise OddFileError(why(error)) from None
    part, reason = with_keys(part, merged=is_merged(path))
    return part if columns is None else part.select(list(columns)), reason


def check_ends(size: int, head: bytes, tail: bytes) -> None:
    """Checks the first four and the last eight bytes of a file against those of a whole Parquet file.

    Raises:
        OddFileError: It is not Parquet, or torn.
    """
    if head != _MAGIC:
        raise OddFileError("not a Parquet file")
    if tail[-4:] != _MAGIC or size < 12 or int.from_bytes(tail[:4], "little") > size - 12:
        raise OddFileError("torn: it does not end as a Parquet file does")


def check_version(path: str, version: bytes | str | None) -> None:
    """Checks the schema version that a file carries.

    Raises:
        OddFileError: It carries none, or one that no version of this project has written.
        StoreError: It is newer than this reader.
    """
    if version is None:
        raise OddFileError("foreign: it carries no schema version of this project")
    text = version.decode(errors="replace") if isinstance(version, bytes) else version
    if not _VERSION.fullmatch(text):
        raise OddFileError(f"foreign: its schema version {text[:40]!r} is not a version of this project")
    if int(text) > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written under schema version {int(text)}, and this revstudy reads versions up to "
            f"{SCHEMA_VERSION}: update revstudy"
        )


def check_columns(names: Sequence[str]) -> None:
    """Checks the names of a file's columns.

    Raises:
        OddFileError: A name stands twice.
    """
    if len(set(names)) < len(names):
        name = Counter(names).most_common(1)[0][0]
        raise OddFileError(f"the column {name[:80]!r} stands in it twice")


def conform(part: pa.Table, table: Table, columns: Collection[str] | None = None) -> pa.Table:
    """Return the columns of the table's schema, in its order and types; one that the part lacks reads as
    null.

    Args:
        part: Rows as a file holds them.
        table: The table that they belong to.
        columns: Only these columns; all without it.

    Raises:
        OddFileError: A value cannot be cast to its column's type.
    """
    have = set(part.column_names)
    arrays, fields = [], []
    for field in table.arrow:
        if columns is not None and field.name not in columns:
            continue
        fields.append(field)
        if field.name not in have:
            arrays.append(pa.chunked_array([pa.nulls(part.num_rows, field.type)]))
            continue
        column = part[field.name]
        try:
            arrays.append(column if column.type == field.type else pc.cast(column, field.type))
        except (pa.ArrowException, ValueError) as error:
            raise OddFileError(
                f"its column {field.name!r} is of type {str(column.type)[:80]} and cannot be read as "
                f"{field.type}: {why(error)}"
            ) from None
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, table.arrow.metadata))


def with_keys(part: pa.Table, *, merged: bool) -> tuple[pa.Table, str]:
    """Return the rows with a trial id, a study and an attempt, and what is said of the others.

    Raises:
        OddFileError: A row of a file of a single trial lacks one of them.
    """
    lacking = [name for name in KEY if part[name].null_count]
    if not lacking:
        return part, ""
    if not merged:
        raise OddFileError(f"a row has no {lacking[0]}")
    kept = part.drop_null() if part.num_columns == len(KEY) else part.filter(_complete(part))
    return kept, f"{part.num_rows - kept.num_rows:,} rows without a {lacking[0]} are left out"


def empty(table: Table, columns: Collection[str] | None = None) -> pa.Table:
    """No rows, with the columns asked for in their order."""
    nothing = table.arrow.empty_table()
    return nothing if columns is None else nothing.select(list(columns))


def why(error: Exception) -> str:
    """The first line of an error, short enough for one line of a report."""
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = told.partition("\n")[0]
    return f"cannot be read: {line[:200]}" if not line.startswith("not a ") else line


def _look_at_ends(source: pa.NativeFile) -> None:
    size = source.size()
    head = source.read(4)
    source.seek(max(0, size - 8))
    check_ends(size, head, source.read(8))
    source.seek(0)


def _complete(part: pa.Table) -> pa.ChunkedArray:
    valid = [pc.is_valid(part[name]) for name in KEY]
    return pc.and_(pc.and_(valid[0], valid[1]), valid[2])


def _differs(table: Table, name: str, kind: pa.DataType) -> bool:
    expected = table.types.get(name)
    return expected is not None and not expected.equals(kind)
