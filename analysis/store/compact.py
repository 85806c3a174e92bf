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
from typing import Any

import pyarrow as pa
from pyarrow import fs

from analysis.errors import StoreError, UnknownStudyError
from analysis.schema import TABLES, Table
from analysis.store.manifest import MANIFEST, MERGED, Entry, manifest_bytes, read_manifest
from analysis.store.merging import merge_files, sources
from analysis.store.reading import Listing, VanishedError, list_files

try:
    import fcntl
except ImportError:  # not a POSIX system: no lock, as on object storage
    fcntl = None  # type: ignore[assignment]

Progress = Callable[[str], None]
_MERGING = re.compile(r"\.merging-[0-9a-f]{16}")


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
    files, found = listing.filesystem, sources(listing, folder, table)
    if len(found.sizes) < 2:
        return None
    prefix = f"{folder}/{table.name}/"
    target = f"{prefix}compact-{uuid.uuid4().hex[:16]}.parquet"
    with _new_file(files, target) as stream:
        taken, check = merge_files(
            listing, found, target, stream, progress=lambda step: progress(f"{study}: {step}")
        )
    try:
        rows = check()
    except StoreError:
        files.delete_file(target)
        raise
    if len(taken) < 2:
        files.delete_file(target)
        return None
    entry = Entry(
        file=target.removeprefix(prefix),
        rows=rows,
        replaces={path.removeprefix(prefix): found.sizes[path] for path in taken},
    )
    return entry, Compacted(
        study=study,
        table=table.name,
        files=len(taken),
        rows=rows,
        bytes_before=sum(found.sizes[path] for path in taken),
        bytes_after=files.get_file_info(target).size,
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


def _put(files: fs.FileSystem, path: str, content: bytes) -> None:
    with _new_file(files, path) as stream:
        stream.write(content)


@contextlib.contextmanager
def _new_file(files: fs.FileSystem, path: str) -> Iterator[Any]:
    """A stream into a file that appears whole or not at all, and is on the disk at the end."""
    if not isinstance(files, fs.LocalFileSystem):
        with files.open_output_stream(path) as stream:
            yield stream
        return
    target = Path(path)
    temporary = target.with_name(f".merging-{uuid.uuid4().hex[:16]}")
    try:
        with temporary.open("wb") as file:
            yield file
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
