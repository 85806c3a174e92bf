"""Merges the files of single trials into one file per table, so that a large store reads fast.

The steps of a merge, each of which leaves a store that reads the same as before:

1. end what an earlier merge began: see `analysis.store.settle`;
2. write the merged files under names that no reader takes into account yet, and read them back;
3. swap the manifest, atomically, and read it back: from here on the merged files count, the originals do not;
4. end what this merge began: the originals go, once it is proved that the merged file holds their rows.

Files that are torn, foreign, or have columns this version does not know are left as they are. Writers are
not disturbed: a trial that ends meanwhile adds its own file, which is read beside the merged one.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from analysis.errors import StoreError, UnknownStudyError
from analysis.schema import TABLES, Table
from analysis.store.exclusive import TakenError, exclusive
from analysis.store.listing import Listing, VanishedError, list_files
from analysis.store.manifest import Entry, read_manifest, write_manifest
from analysis.store.merging import merge_files, sources
from analysis.store.settle import settle
from analysis.store.storage import Storage, open_storage

Progress = Callable[[str], None]


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
    location: str | Path | Storage, study: str | None = None, *, progress: Progress = lambda step: None
) -> list[Compacted]:
    """Merges the trial files of every study of a store, or of one.

    Args:
        location: A local path, a URI that `pyarrow.fs` understands, or an open `Storage`.
        study: Only this study.
        progress: Told each step before it is taken. Steps that another process must not take meanwhile are
            taken only while the lock, or the lease in object storage, is this process's.

    Returns:
        One entry per table that had something to merge.

    Raises:
        StoreError: The store cannot be read or written, or another process is merging it.
        UnknownStudyError: There is no such study.
    """
    storage = location if isinstance(location, Storage) else open_storage(location)
    studies = list_files(storage).studies
    if study is not None and study not in studies:
        raise UnknownStudyError(
            f"the store {storage.root!r} has no study {study!r}: it holds {', '.join(studies) or 'none'}"
        )
    done: list[Compacted] = []
    for name in studies if study is None else (study,):
        done += _compact_study(storage, name, progress)
    return done


def _compact_study(storage: Storage, study: str, progress: Progress) -> list[Compacted]:
    folder = storage.path(f"study={study}")
    try:
        with exclusive(storage.address, f"study={study}/.compact.lock") as still_ours:

            def step(text: str) -> None:
                still_ours()
                progress(text)

            settle(storage, folder, step)
            listing, manifest = list_files(storage), read_manifest(storage, folder)
            done = []
            for table in TABLES.values():
                merged = _merge(listing, folder, table, study, step)
                if merged is not None:
                    manifest[table.name], what = merged
                    done.append(what)
            if done:
                step(f"{study}: swap the manifest")
                write_manifest(storage, folder, manifest)
                settle(storage, folder, step)
            return done
    except TakenError as error:
        raise StoreError(f"another process is merging {folder}: wait until it is done ({error})") from None
    except VanishedError as error:
        raise StoreError(f"{error} vanished while it was merged; nothing was deleted") from None
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"cannot merge the files of study {study!r}: {error}") from None


def _merge(
    listing: Listing, folder: str, table: Table, study: str, progress: Progress
) -> tuple[Entry, Compacted] | None:
    """Writes the merged file of one table; None if there are not two files to merge."""
    storage, found = listing.storage, sources(listing, folder, table)
    if len(found.sizes) < 2:
        return None
    prefix = f"{folder}/{table.name}/"
    target = f"{prefix}compact-{uuid.uuid4().hex[:16]}.parquet"
    with storage.new_file(target) as stream:
        taken, check = merge_files(
            listing, found, target, stream, progress=lambda step: progress(f"{study}: {step}")
        )
    # The file is new and no manifest names it: its originals are all there, so it may go.
    try:
        rows = check()
    except StoreError:
        storage.delete(target)
        raise
    if len(taken) < 2:
        storage.delete(target)
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
        bytes_after=storage.look(target).size,
    )
