"""Which files a store has: by table, with those left out that a merged file stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from analysis.errors import StoreError
from analysis.schema import TABLES
from analysis.store.manifest import MERGED, Entry, read_manifest
from analysis.store.storage import Item, Storage, open_storage

FILE = re.compile(r"(?P<trial>[^/.][^/]*)-a(?P<attempt>\d+)\.parquet")
"""The name of the file of one trial attempt."""


@dataclass(frozen=True, kw_only=True)
class SkippedFile:
    """A file under the store that was left out, and why."""

    path: str
    reason: str


class VanishedError(Exception):
    """A listed file is gone: it was merged into another after the listing. List again."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a store at one moment.

    Attributes:
        storage: Where they are.
        studies: Names of the studies that have a folder.
        files: Paths by table, in the order of their names. Those that a merged file stands for are not among
            them: see `analysis.store.manifest`.
        sizes: Bytes of each file in `files`; 0 if unknown.
        changed_ns: When each file of a single trial was last written, nanoseconds since 1970; trials only.
        replaced: For each merged file, the files still there whose rows it holds.
        odd: What is named like a file of the store and cannot be one, with the reason.
    """

    storage: Storage
    studies: tuple[str, ...]
    files: dict[str, tuple[str, ...]]
    sizes: dict[str, int]
    changed_ns: dict[str, int]
    replaced: dict[str, tuple[str, ...]]
    odd: dict[str, tuple[SkippedFile, ...]]

    def folder(self, study: str) -> str:
        """The path of a study's folder."""
        return self.storage.path(f"study={study}")

    def members(self, study: str) -> frozenset[str]:
        """Trial ids that ``study.json`` lists: a study owns trials that an earlier one trained, too."""
        ids = self._record(study).get("trial_ids", [])
        return frozenset(i for i in ids if isinstance(i, str)) if isinstance(ids, list) else frozenset()

    def description(self, study: str) -> str:
        """What a study says of itself in ``study.json``; empty where it says nothing."""
        said = self._record(study).get("description")
        return " ".join(said.split()) if isinstance(said, str) else ""

    def tags(self, study: str) -> tuple[str, ...]:
        """The words that a study is found by, from ``study.json``; none where it has none."""
        tags = self._record(study).get("tags")
        return tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()

    def _record(self, study: str) -> dict[str, Any]:
        """What ``study.json`` holds; empty where there is none, or a damaged one."""
        try:
            record = json.loads(self.storage.read(f"{self.folder(study)}/study.json"))
        except (OSError, ValueError, RecursionError):
            return {}
        return record if isinstance(record, dict) else {}


def list_files(location: str | Path | Storage, *, missing_ok: bool = False) -> Listing:
    """Lists a store.

    Args:
        location: A local path, a URI that `pyarrow.fs` understands, or an open `Storage`.
        missing_ok: Take a store that does not exist for an empty one.

    Returns:
        The files by study and table.

    Raises:
        StoreError: Nothing is there, it is not a folder, or it may not be read.
    """
    storage = location if isinstance(location, Storage) else open_storage(location)
    text = str(storage.root if isinstance(location, Storage) else location)
    try:
        kind = storage.look(storage.root).kind
        if kind == "missing":
            if missing_ok:
                return _Draft(storage).listing()
            raise StoreError(
                f"no store at {text!r}: the folder does not exist. "
                f"`revstudy run STUDY --store {text}` writes one"
            )
        if kind != "folder":
            raise StoreError(f"the store must be a folder, but {text!r} is a file")
        draft = _Draft(storage)
        for item in storage.items(storage.root):
            if item.kind == "folder" and item.name.startswith("study="):
                draft.add_study(item)
        return draft.listing()
    except (OSError, pa.ArrowInvalid, NotImplementedError) as error:
        raise StoreError(f"cannot read the store at {text!r}: {error}") from None


def is_merged(path: str) -> bool:
    """Whether a path is that of a merged file."""
    return MERGED.fullmatch(path.rpartition("/")[2]) is not None


def may_hold(path: str, trial_ids: Collection[str]) -> bool:
    """Whether a file may hold rows of these trials, by its name: merged files and odd names may."""
    name = FILE.fullmatch(path.rpartition("/")[2])
    return name is None or name["trial"] in trial_ids


@dataclass
class _Draft:
    """A listing in the making."""

    storage: Storage
    studies: list[str] = field(default_factory=list)
    files: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in TABLES})
    sizes: dict[str, int] = field(default_factory=dict)
    changed_ns: dict[str, int] = field(default_factory=dict)
    replaced: dict[str, tuple[str, ...]] = field(default_factory=dict)
    odd: dict[str, list[SkippedFile]] = field(default_factory=lambda: {name: [] for name in TABLES})

    def add_study(self, folder: Item) -> None:
        """Adds the files of a study's folder.

        The manifest is read after the files are listed: a merge may come in between, and a merged file that
        is newer than the list is looked for by its name.
        """
        self.studies.append(folder.name.removeprefix("study="))
        found: dict[str, dict[str, int]] = {}
        for table in TABLES:
            found[table] = {}
            items = self.storage.items(f"{folder.path}/{table}")
            if not items and (own := self.storage.look(f"{folder.path}/{table}")).kind in ("file", "other"):
                self._leave_out(table, own.path, "not a folder, as a table of a store must be")
            for item in items:
                if item.name.startswith(".") or not item.name.endswith(".parquet"):
                    continue
                if item.kind != "file":
                    self._leave_out(table, item.path, _what(item))
                    continue
                found[table][item.path] = item.size
                if table == "trials":
                    self.changed_ns[item.path] = item.changed_ns
        manifest = read_manifest(self.storage, folder.path)
        for table, sizes in found.items():
            merged = [path for path in sizes if is_merged(path)]
            entry = manifest.get(table)
            named = None if entry is None else f"{folder.path}/{table}/{entry.file}"
            for path in merged:
                if path != named:  # an unfinished merge, or one whose rows a later one holds
                    del sizes[path]
            if entry is not None and named is not None:
                self._add_merged(table, named, entry, sizes)
            self.files[table] += sizes
            self.sizes.update(sizes)

    def _add_merged(self, table: str, path: str, entry: Entry, sizes: dict[str, int]) -> None:
        folder = path.rpartition("/")[0]
        still = []
        for name, size in entry.replaces.items():
            old = f"{folder}/{name}"
            # An earlier merged file counts no more, so it is not among the sizes.
            now = self.storage.look(old).size if MERGED.fullmatch(name) else sizes.get(old)
            if now == size:
                still.append(old)
        if path not in sizes:
            item = self.storage.look(path)
            if item.kind != "file":
                told = "missing" if item.kind == "missing" else _what(item)
                self._leave_out(table, path, f"{told}, and the manifest names it; {instead_of(entry, still)}")
                for p in still:
                    sizes.setdefault(p, 0)
                return
            sizes[path] = item.size
        for p in still:
            sizes.pop(p, None)
        if still:
            self.replaced[path] = tuple(still)

    def _leave_out(self, table: str, path: str, reason: str) -> None:
        self.odd[table].append(SkippedFile(path=path, reason=reason))

    def listing(self) -> Listing:
        """What was found, in order."""
        return Listing(
            storage=self.storage,
            studies=tuple(sorted(self.studies)),
            files={name: tuple(sorted(paths)) for name, paths in self.files.items()},
            sizes=self.sizes,
            changed_ns=self.changed_ns,
            replaced=self.replaced,
            odd={name: tuple(files) for name, files in self.odd.items()},
        )


def instead_of(entry: Entry | None, still: Collection[str]) -> str:
    """What a reader does in place of a damaged merged file."""
    if still:
        return f"the {len(still):,} files that it replaces are read in its place"
    rows = "its rows" if entry is None else f"its {entry.rows:,} rows"
    return f"{rows} cannot be read unless it is brought back"


def _what(item: Item) -> str:
    if item.kind == "folder":
        return "not a file: it is a folder"
    return "not a regular file: it is a pipe, a device or a link that leads nowhere"
