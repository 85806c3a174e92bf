"""Merges the files of single trials into one file per table, so that a large store reads fast.

The steps of a merge, each of which leaves a store that reads the same as before:

1. finish what an earlier merge left behind;
2. write the merged files under names that no reader takes into account yet, and check them;
3. swap the manifest, atomically: from here on the merged files count and the originals do not;
4. delete the originals, those alone that did not change since they were read;
5. write the manifest without the names of what was deleted.

Files that are torn, foreign, or have columns this version does not know are left as they are. Writers are
not disturbed: a trial that ends meanwhile adds its own file, which is read beside the merged one.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from analysis.errors import StoreError, UnknownStudyError
from analysis.files import Listing, VanishedError, connect, list_files, read_files
from analysis.manifest import MANIFEST, MERGED, Entry, manifest_bytes, read_manifest
from analysis.schema import TABLES, Table

try:
    import fcntl
except ImportError:  # not a POSIX system: no lock, as on object storage
    fcntl = None  # type: ignore[assignment]

Progress = Callable[[str], None]
_MERGING = re.compile(r"\.merging-[0-9a-f]{16}")
_PART = 1_000_000
_ORDER = {
    "trials": ("started_at", "trial_id", "attempt"),  # as a store lists them: see analysis.store
    "epochs": ("trial_id", "attempt", "epoch"),
    "blocks": ("trial_id", "attempt", "epoch", "block", "name"),
}


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What a merge did to one table of a study."""

    study: str
    table: str
    files: int
    rows: int
    bytes_before: int
    bytes_after: int


def compact(
    path: str | Path, study: str | None = None, *, progress: Progress = lambda step: None
) -> list[Compacted]:
    """Merges the trial files of every study of a store, or of one.

    Args:
        path: the store.
        study: only this study.
        progress: told each step before it is taken.

    Returns:
        One entry per table that had something to merge.

    Raises:
        StoreError: the store cannot be read or written, or another process is merging it.
        UnknownStudyError: there is no such study.

    """
    studies = list_files(path).studies
    if study is not None and study not in studies:
        raise UnknownStudyError(
            f"the store {str(path)!r} has no study {study!r}: it holds {', '.join(studies) or 'none'}"
        )
    done: list[Compacted] = []
    for name in studies if study is None else (study,):
        done += _compact_study(path, name, progress)
    return done


def _compact_study(path: str | Path, study: str, progress: Progress) -> list[Compacted]:
    listing = list_files(path)
    files, folder = listing.filesystem, f"{listing.root}/study={study}"
    try:
        with _lock(files, folder):
            _finish(files, folder, progress)
            listing, manifest = list_files(path), read_manifest(files, folder)
            done = []
            for table in TABLES.values():
                merged = _merge(listing, folder, table, study, progress)
                if merged is not None:
                    manifest[table.name], what = merged
                    done.append(what)
            if done:
                progress(f"{study}: swap the manifest")
                _put(files, f"{folder}/{MANIFEST}", manifest_bytes(manifest))
                _finish(files, folder, progress)
            return done
    except VanishedError as error:
        raise StoreError(f"{error} vanished while it was merged; nothing was changed") from None
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"cannot merge the files of study {study!r}: {error}") from None


def _merge(
    listing: Listing, folder: str, table: Table, study: str, progress: Progress
) -> tuple[Entry, Compacted] | None:
    """Writes the merged file of one table; None if there are not two files to merge."""
    prefix = f"{folder}/{table.name}/"
    paths = [path for path in listing.files[table.name] if path.startswith(prefix)]
    if len(paths) < 2:
        return None
    sizes = {info.path: info.size for info in listing.filesystem.get_file_info(paths)}
    known = {column.name for column in table.columns}
    paths = [path for path in paths if _columns(listing.filesystem, path) <= known]
    rows, skipped = read_files(listing, table, paths)
    paths = [path for path in paths if path not in {file.path for file in skipped}]
    if len(paths) < 2:
        return None
    rows = rows.sort_by([(name, "ascending") for name in _ORDER[table.name]])
    target = f"{prefix}compact-{uuid.uuid4().hex[:16]}.parquet"
    progress(f"{study}: write {rows.num_rows} rows of {table.name}")
    buffer = pa.BufferOutputStream()
    pq.write_table(rows, buffer, compression="zstd", row_group_size=131_072)
    content = buffer.getvalue().to_pybytes()
    _put(listing.filesystem, target, content)
    written, torn = read_files(listing, table, [target])
    if torn or not _same(written, rows):
        listing.filesystem.delete_file(target)
        raise StoreError(f"{target} does not read back as it was written; nothing was changed")
    entry = Entry(
        file=target.removeprefix(prefix),
        rows=rows.num_rows,
        replaces={path.removeprefix(prefix): sizes[path] for path in paths},
    )
    before = sum(sizes[path] for path in paths)
    return entry, Compacted(
        study=study,
        table=table.name,
        files=len(paths),
        rows=rows.num_rows,
        bytes_before=before,
        bytes_after=len(content),
    )


def _finish(files: fs.FileSystem, folder: str, progress: Progress) -> None:
    """Deletes what the manifest replaces and what an unfinished merge left, then clears the manifest."""
    manifest = read_manifest(files, folder)
    for table in TABLES:
        place, entry = f"{folder}/{table}", manifest.get(table)
        if files.get_file_info(place).type != fs.FileType.Directory:
            continue
        for info in files.get_file_info(fs.FileSelector(place)):
            name = info.base_name
            orphan = _MERGING.fullmatch(name) is not None or (
                MERGED.fullmatch(name) is not None and (entry is None or name != entry.file)
            )
            if orphan or (entry is not None and entry.replaces.get(name) == info.size):
                progress(f"delete {table}/{name}")
                files.delete_file(info.path)
    if any(entry.replaces for entry in manifest.values()):
        progress("clear the manifest")
        cleared = {table: replace(entry, replaces={}) for table, entry in manifest.items()}
        _put(files, f"{folder}/{MANIFEST}", manifest_bytes(cleared))


def _columns(files: fs.FileSystem, path: str) -> set[str]:
    """The columns of a file; none if it cannot be read, which reading it finds out again."""
    try:
        with files.open_input_file(path) as source:
            return set(pq.read_schema(source).names)
    except FileNotFoundError:
        raise VanishedError(path) from None
    except (OSError, pa.ArrowException):
        return set()


def _same(a: pa.Table, b: pa.Table) -> bool:
    """Whether two tables hold the same values in the same order; NaN is the same as NaN."""
    if a.num_rows != b.num_rows:
        return False
    # A part at a time: a join of millions of rows would take more memory than both tables.
    starts = range(0, a.num_rows, _PART)
    return all(_same_part(a.slice(start, _PART), b.slice(start, _PART)) for start in starts)


def _same_part(a: pa.Table, b: pa.Table) -> bool:
    if a.equals(b):
        return True
    connection = connect()  # `Table.equals` denies that NaN is NaN
    connection.register("a", a)
    connection.register("b", b)
    found = connection.execute(
        "SELECT count(*) FROM (SELECT row_number() OVER () AS i, * FROM a) a "
        "FULL JOIN (SELECT row_number() OVER () AS i, * FROM b) b ON a.i = b.i WHERE a IS DISTINCT FROM b"
    ).fetchone()
    return found == (0,)


def _put(files: fs.FileSystem, path: str, content: bytes) -> None:
    """Writes a file that appears whole or not at all, and is on the disk when this returns."""
    if not isinstance(files, fs.LocalFileSystem):
        with files.open_output_stream(path) as stream:
            stream.write(content)
        return
    target = Path(path)
    temporary = target.with_name(f".merging-{uuid.uuid4().hex[:16]}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    handle = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _lock(files: fs.FileSystem, folder: str) -> Iterator[None]:
    """Lets one process merge a study at a time; the lock ends with the process, however that ends."""
    if fcntl is None or not isinstance(files, fs.LocalFileSystem):
        yield
        return
    with Path(folder, ".compact.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"another process is merging {folder}: wait until it is done") from None
        yield
