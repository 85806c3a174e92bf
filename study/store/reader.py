"""What a store knows of earlier trials, read fast: which of a plan's are done, and how long others took.

A file of one trial names it, so a plan opens the files of its own trials, the merged files, and the newest
few of the others; never a hundred thousand files one by one.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from analysis.schema import SCHEMA_VERSION, TRIALS, VERSION_KEY
from study import outcomes
from study.errors import StoreError
from study.store.files import located, open_source

NEWEST = 256
"""Files of single trials, beyond those of the plan, that are read to learn how long trials take."""

_SINGLE = re.compile(r"(?P<trial>[^/.][^/]*)-a\d+\.parquet")
_MERGED = re.compile(r"compact-[0-9a-f]{16}\.parquet")
_TIMES = (
    *("trial_id", "outcome", "config_json", "batch_size", "workers", "compute_dtype", "examples_train"),
    *("epochs_done", "steps_done", "step_time_s", "wall_s", "device", "cpu_threads", "finished_at"),
)
_LEAST_WIDE = ("trial_id", "study", "attempt", "outcome")


@dataclass(frozen=True, kw_only=True)
class _Files:
    filesystem: fs.FileSystem
    singles: tuple[tuple[str, str, float], ...]  # path, trial id, time of last change
    merged: tuple[str, ...]


class History:
    """The trials of a store, listed once. A store that does not exist yet has none.

    Raises:
        StoreError: The store cannot be read, or is of a newer schema.
    """

    def __init__(self, store: str | Path) -> None:
        self._store = str(store)
        self._files = _list(self._store)

    def done(self, trial_ids: Collection[str]) -> dict[str, str]:
        """Those of `trial_ids` that need no training, each with the study that trained it."""
        wanted = trial_ids if isinstance(trial_ids, set | frozenset | dict) else set(trial_ids)
        try:
            return self._done(wanted)
        except FileNotFoundError:
            # `analysis.store.compact` has merged files since they were listed.
            self._files = _list(self._store)
            return self.done(wanted)

    def _done(self, wanted: Collection[str]) -> dict[str, str]:
        own = [path for path, trial, _ in self._files.singles if trial in wanted]
        found: dict[str, str] = {}
        for table in self._read([*self._files.merged, *own], _LEAST_WIDE):
            final = table.filter(pc.is_in(table["outcome"], pa.array(outcomes.FINAL)))
            names = final["trial_id"].to_pylist(), final["study"].to_pylist()
            found.update({i: study for i, study in zip(*names, strict=True) if i in wanted})
        return found

    def timed(self, trial_ids: Collection[str] = ()) -> list[dict[str, Any]]:
        """Rows of trials that ended ok, with their times: the plan's own, merged ones, the newest others.

        At most `NEWEST` of the merged ones are taken, the last to finish.
        """
        try:
            return self._timed(trial_ids)
        except FileNotFoundError:
            self._files = _list(self._store)
            return self.timed(trial_ids)

    def _timed(self, trial_ids: Collection[str]) -> list[dict[str, Any]]:
        newest = sorted(self._files.singles, key=lambda file: -file[2])[:NEWEST]
        own = {path for path, trial, _ in self._files.singles if trial in trial_ids}
        own = set(sorted(own)[:NEWEST]) | {path for path, _, _ in newest}
        rows: list[dict[str, Any]] = []
        for paths in (self._files.merged, sorted(own)):
            tables = self._read(paths, _TIMES)
            if tables:
                table = pa.concat_tables(tables, promote_options="default")
                good = pc.and_(pc.equal(table["outcome"], outcomes.OK), pc.is_valid(table["config_json"]))
                table = table.filter(pc.and_(good, pc.greater(table["steps_done"], 0)))
                order = pc.sort_indices(table, sort_keys=[("finished_at", "descending")])[: 2 * NEWEST]
                rows += table.take(order).to_pylist()
        return rows

    def _read(self, paths: Collection[str], columns: Collection[str]) -> list[pa.Table]:
        with ThreadPoolExecutor(max_workers=8) as pool:
            tables = pool.map(lambda path: _read_columns(self._store, path, columns), paths)
            return [table for table in tables if table is not None and table.num_rows]


def _list(store: str) -> _Files:
    location = located(store)
    try:
        if "://" in location:
            filesystem, root = fs.FileSystem.from_uri(location)
        else:
            filesystem, root = fs.LocalFileSystem(), location
        kind = filesystem.get_file_info(root).type
        if kind == fs.FileType.NotFound:
            return _Files(filesystem=filesystem, singles=(), merged=())
        if kind != fs.FileType.Directory:
            raise NotADirectoryError(f"{store} is a file")
        studies = [
            i.path for i in filesystem.get_file_info(fs.FileSelector(root)) if "/study=" in f"/{i.base_name}"
        ]
        found = [
            info
            for folder in studies
            for info in filesystem.get_file_info(fs.FileSelector(f"{folder}/trials", allow_not_found=True))
            if info.is_file
        ]
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            value=store,
            rule=f"the store could not be read ({getattr(error, 'strerror', None) or error})",
            remedy="choose another folder with --store or REVSTUDY_STORE",
        ) from None
    singles, merged = [], []
    for info in found:
        if match := _SINGLE.fullmatch(info.base_name):
            singles.append((info.path, match["trial"], float(info.mtime_ns or 0)))
        elif _MERGED.fullmatch(info.base_name):
            merged.append(info.path)
    return _Files(filesystem=filesystem, singles=tuple(singles), merged=tuple(merged))


def _read_columns(store: str, path: str, columns: Collection[str]) -> pa.Table | None:
    """Columns of one file, null where the file lacks them; None for a torn or foreign file."""
    try:
        with open_source(store, path) as source, pq.ParquetFile(source, pre_buffer=False) as parquet:
            schema = parquet.schema_arrow
            version = (schema.metadata or {}).get(VERSION_KEY)
            if version is None:
                return None
            if int(version) > SCHEMA_VERSION:
                raise StoreError(
                    value=int(version),
                    rule=f"{path} has a newer schema than this version's {SCHEMA_VERSION}",
                    remedy="update revstudy",
                )
            table = parquet.read(columns=[c for c in columns if c in schema.names], use_threads=False)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError):
        return None
    types = TRIALS.arrow
    for name in columns:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, types.field(name).type))
    try:
        return table.select(list(columns)).cast(
            pa.schema([pa.field(name, types.field(name).type) for name in columns])
        )
    except pa.ArrowException:
        return None
