"""Writing to the results store, and asking it what is done. Files are written once and never changed.

A file appears under its name only when it is whole: see `study.store.files`. The row of a trial comes after
its curves, so that a row in the store means that all of it is there.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from analysis.schema import SCHEMA_VERSION, TABLES, VERSION_KEY
from analysis.store.objects import objects_at
from study import outcomes
from study.errors import StoreError
from study.store.files import (
    create_file,
    file_exists,
    local_folder,
    located,
    open_filesystem,
    open_source,
    remove_file,
    store_errors,
    write_file,
)
from study.store.rows import TrialResult, lost_result

__all__ = [
    "attempts",
    "check_writable",
    "done_ids",
    "lost_result",
    "read_rows",
    "trial_rows",
    "write_result",
    "write_study",
]

_TRIAL_FILE = re.compile(r"/study=[^/]+/trials/[^/.][^/]*\.parquet$")


class AttemptTakenError(Exception):
    """The store has a row of this trial and attempt already; it stays as it is."""


def write_result(store: str | Path, result: TrialResult) -> None:
    """Add the rows of one trial attempt to the store: up to three Parquet files.

    Raises:
        AttemptTakenError: The store has a row of this attempt; no row is ever written over.
        StoreError: The store cannot be written.
    """
    row = result.trial
    name = f"{row['trial_id']}-a{row['attempt']}.parquet"
    if file_exists(store, f"study={row['study']}/trials/{name}"):
        raise AttemptTakenError(name)
    for table, rows in (("epochs", result.epochs), ("blocks", result.blocks), ("trials", [row])):
        if rows:
            content = pa.Table.from_pylist(rows, schema=TABLES[table].arrow)
            buffer = pa.BufferOutputStream()
            # A file holds a few rows: zstd and dictionaries would take three times as long to read and write.
            pq.write_table(content, buffer, compression="snappy", use_dictionary=False)
            path, data = f"study={row['study']}/{table}/{name}", buffer.getvalue().to_pybytes()
            if table != "trials":
                write_file(store, path, data)
            elif not create_file(store, path, data):
                raise AttemptTakenError(name)


def write_study(
    store: str | Path, study: Mapping[str, Any], trial_ids: Iterable[str] = (), *, planned: int | None = None
) -> None:
    """Write ``study=<name>/study.json``: the validated study, with its trials under ``trial_ids``.

    Trials that another study trained are part of this one through that list. `planned` is how many trials the
    study has, those of its searches included that are not known yet.

    Raises:
        StoreError: The store cannot be written.
    """
    trials = {"trial_ids": sorted(trial_ids), **({} if planned is None else {"planned": planned})}
    content = json.dumps({**study, **trials}, indent=2, allow_nan=False)
    write_file(store, f"study={study['name']}/study.json", content.encode() + b"\n")


def check_writable(store: str | Path) -> None:
    """Make the store's folder, and make sure that it can be written to; nothing is left behind.

    Object storage must also honour conditional writes, by which runs agree on who trains what.

    Raises:
        StoreError: The store cannot be written.
    """
    name = f".write-test-{uuid.uuid4().hex[:8]}"
    write_file(store, name, b"")
    remove_file(store, name)
    if local_folder(store) is None:
        with store_errors(store, "used by a run"):
            objects_at(located(store)).check()


def done_ids(store: str | Path) -> set[str]:
    """Trial ids that need no training: the store has a row of theirs that ended in `study.outcomes.FINAL`.

    A store that does not exist yet has none. Files that are torn or foreign count for nothing.

    Raises:
        StoreError: The store cannot be read, or is of a newer schema.
    """
    rows = _rows(store, ["trial_id", "outcome"])
    return {row["trial_id"] for row in rows if row["outcome"] in outcomes.FINAL}


def attempts(store: str | Path) -> dict[str, int]:
    """The number of the next attempt of every trial that the store has a row of.

    Raises:
        StoreError: The store cannot be read, or is of a newer schema.
    """
    following: dict[str, int] = {}
    for row in _rows(store, ["trial_id", "attempt"]):
        following[row["trial_id"]] = max(following.get(row["trial_id"], 0), row["attempt"] + 1)
    return following


def trial_rows(store: str | Path, trial_id: str, *, attempts: int = 8) -> list[dict[str, Any]]:
    """The rows of one trial's first attempts, found by the names of their files, which takes milliseconds.

    Rows that `analysis.store.compact` has merged since are not among them.

    Raises:
        StoreError: The store cannot be read, or is of a newer schema.
    """
    filesystem, root = open_filesystem(store)
    with store_errors(store, "read"):
        found = filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True))
        folders = [info.path for info in found if info.base_name.startswith("study=")]
        names = [f"{trial_id}-a{attempt}.parquet" for attempt in range(attempts)]
        files = filesystem.get_file_info([f"{folder}/trials/{name}" for folder in folders for name in names])
    rows: list[dict[str, Any]] = []
    for info in files:
        if info.is_file:
            with contextlib.suppress(FileNotFoundError):  # merged since
                table = _read(store, info.path, None)
                rows += [] if table is None else table.to_pylist()
    return rows


def read_rows(store: str | Path) -> dict[str, dict[str, Any]]:
    """One row for each trial: its last attempt that ended ok, or else its last attempt.

    Raises:
        StoreError: The store cannot be read, or is of a newer schema.
    """
    best: dict[str, dict[str, Any]] = {}
    for row in _rows(store, None):
        other = best.get(row["trial_id"])
        if other is None or _rank(row) > _rank(other):
            best[row["trial_id"]] = row
    return best


def _rank(row: Mapping[str, Any]) -> tuple[bool, int]:
    return row["outcome"] == outcomes.OK, row["attempt"]


def _rows(store: str | Path, columns: list[str] | None) -> Iterator[dict[str, Any]]:
    filesystem, root = open_filesystem(store)
    with store_errors(store, "read"):
        kind = filesystem.get_file_info(root).type
        if kind == fs.FileType.NotFound:
            return
        if kind != fs.FileType.Directory:
            raise NotADirectoryError(f"{store} is a file")
        found = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    files = [info.path for info in found if info.is_file and _TRIAL_FILE.search(info.path)]
    with ThreadPoolExecutor(max_workers=8) as pool:
        try:
            found_tables = list(pool.map(lambda file: _read(store, file, columns), files))
        except FileNotFoundError:
            # `analysis.store.compact` has merged files since they were listed.
            yield from _rows(store, columns)
            return
    tables = [table for table in found_tables if table is not None]
    if tables:
        # One conversion to Python for all files: for each file by itself it would take the most time.
        yield from pa.concat_tables(tables, promote_options="default").to_pylist()


def _read(store: str | Path, file: str, columns: list[str] | None) -> pa.Table | None:
    try:
        with open_source(store, file) as source, pq.ParquetFile(source, pre_buffer=False) as parquet:
            version = (parquet.schema_arrow.metadata or {}).get(VERSION_KEY)
            if version is None:
                return None
            if int(version) > SCHEMA_VERSION:
                raise StoreError(
                    value=int(version),
                    rule=f"{file} has a newer schema than this version's {SCHEMA_VERSION}",
                    remedy="update revstudy",
                )
            return parquet.read(columns=columns, use_threads=False)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError):
        return None
