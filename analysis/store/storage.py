"""The folder or bucket that holds a store: every file operation of a store goes through `Storage`.

A local file is written under a name that starts with a dot, synced, renamed, and its folder synced. So no
reader sees a part of a file under its name, and no killed writer leaves one. Object storage shows an object
once its upload is complete, which is the same promise.

Nothing is opened that is not a regular file: a pipe would never answer, and a device might never end.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pyarrow import fs

from analysis.errors import StoreError
from analysis.store.objects import ObjectStoreError, objects_at

Kind = Literal["file", "folder", "other", "missing"]

PARTIAL = re.compile(r"\..+\.[0-9a-f]{16}")
"""The temporary names under which files are written: a dot, the name to be, and 16 random digits."""

_REMOTE = re.compile(r"[a-z][a-z0-9+.-]+://")
_KINDS: dict[fs.FileType, Kind] = {
    fs.FileType.File: "file",
    fs.FileType.Directory: "folder",
    fs.FileType.NotFound: "missing",
    fs.FileType.Unknown: "other",
}


class NotARegularFileError(OSError):
    """What should be opened is a folder, a pipe, a device or a link that leads nowhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One thing in a folder.

    Attributes:
        name: Its name in the folder.
        path: Its full path.
        kind: ``file``, ``folder``, ``missing``, or ``other``: a pipe, a device, a link that leads nowhere.
        size: Bytes of a file, else 0.
        changed_ns: When it was last written, in nanoseconds since 1970; 0 if unknown.
    """

    name: str
    path: str
    kind: Kind
    size: int
    changed_ns: int


class Storage:
    """A store's place on a file system, with the few operations that a store needs.

    Args:
        filesystem: The file system of `pyarrow.fs`.
        root: The store's path on it.
        address: What users call it: a path, or a URI.

    Attributes:
        filesystem: As given.
        root: As given, without a slash at its end.
        address: As given; the root without it.
        local: Whether it is a folder of this machine (or a mount), where a rename replaces a file at once.
    """

    def __init__(self, filesystem: fs.FileSystem, root: str, *, address: str | None = None) -> None:
        self.filesystem = filesystem
        self.address = root if address is None else address
        self.root = root.rstrip("/") or "/"
        self.local = isinstance(filesystem, fs.LocalFileSystem)

    def path(self, name: str) -> str:
        """The full path of a name in the store, such as ``study=demo/compact.json``."""
        return f"{self.root}/{name}"

    def look(self, path: str) -> Item:
        """Return what is at a path. Links are followed.

        Raises:
            OSError: It cannot be looked at.
        """
        if self.local:
            return _local_item(path.rpartition("/")[2], path)
        return _item(self.filesystem.get_file_info(path))

    def look_at(self, paths: Sequence[str]) -> list[Item]:
        """Return what is at each of these paths.

        Raises:
            OSError: They cannot be looked at.
        """
        if self.local:
            return [self.look(path) for path in paths]
        return [_item(info) for info in self.filesystem.get_file_info(list(paths))] if paths else []

    def items(self, folder: str) -> list[Item]:
        """Return what a folder holds, without what its folders hold; nothing where there is no such folder.

        Raises:
            OSError: The folder cannot be listed.
        """
        if not self.local:
            selector = fs.FileSelector(folder, allow_not_found=True)
            return [_item(info) for info in self.filesystem.get_file_info(selector)]
        try:
            with os.scandir(folder) as entries:
                return [_local_item(entry.name, f"{folder}/{entry.name}", entry) for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return []

    @contextlib.contextmanager
    def source(self, path: str) -> Iterator[pa.NativeFile]:
        """A regular file, open for reading at any place.

        An object is read whole first, and again where the connection broke. So what a parser says is about
        the file, and a connection that broke is never taken for a torn file.

        Yields:
            The open file.

        Raises:
            FileNotFoundError: There is no such file.
            NotARegularFileError: It is a folder, a pipe, a device or a link that leads nowhere.
            StoreError: The object storage does not answer.
            OSError: It cannot be read.
        """
        if "://" in self.address and not self.local:
            yield pa.BufferReader(self._download(path))
            return
        if self.local and (kind := self.look(path).kind) != "file":
            if kind == "missing":
                raise FileNotFoundError(path)
            raise NotARegularFileError("not a regular file")
        with self.filesystem.open_input_file(path) as source:
            yield source

    def _download(self, path: str) -> bytes:
        try:
            found = objects_at(self.address).read(path.removeprefix(f"{self.root}/"))
        except ObjectStoreError as error:
            raise StoreError(f"cannot read {path} of the store at {self.address!r}: {error}") from None
        if found is None:
            raise FileNotFoundError(path)
        return found.content

    def read(self, path: str) -> bytes:
        """Return the content of a small file.

        Raises:
            FileNotFoundError: There is no such file.
            NotARegularFileError: It is no regular file.
            OSError: It cannot be read.
        """
        with self.source(path) as source:
            content: bytes = source.read()
            return content

    def write(self, path: str, content: bytes) -> None:
        """Write a file, whole under its name or not at all; one of that name is replaced.

        Raises:
            OSError: It cannot be written; nothing is left behind.
        """
        with self.new_file(path) as stream:
            stream.write(content)

    @contextlib.contextmanager
    def new_file(self, path: str) -> Iterator[Any]:
        """A binary stream into a file that appears whole or not at all, and is on the disk at the end.

        Yields:
            The stream to write to.

        Raises:
            OSError: It cannot be written; nothing is left behind.
        """
        if not self.local:
            self.step("upload", path)
            with self.filesystem.open_output_stream(path) as stream:
                yield stream
            return
        target = Path(path)
        temporary = target.with_name(f".{target.name.lstrip('.')}.{uuid.uuid4().hex[:16]}")
        self.step("make folder", path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.step("create", path)
            with temporary.open("wb") as file:
                yield file
                self.step("flush", path)
                file.flush()
                self.step("sync", path)
                os.fsync(file.fileno())
            self.step("rename", path)
            temporary.replace(target)
        except BaseException:
            self.step("clean up", path)
            temporary.unlink(missing_ok=True)
            raise
        self.step("sync folder", path)
        sync_folder(target.parent)

    def delete(self, path: str) -> None:
        """Delete a file, if it is there.

        Raises:
            OSError: It cannot be deleted.
        """
        self.step("delete", path)
        with contextlib.suppress(FileNotFoundError):
            if self.local:
                Path(path).unlink()
            else:
                self.filesystem.delete_file(path)

    def confirm(self, path: str) -> None:
        """Make sure that a file is on the disk under its name, or in object storage, before others go.

        Raises:
            OSError: It is not there, or cannot be synced.
            FileNotFoundError: The object storage has no such object.
        """
        if self.local:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            sync_folder(path.rpartition("/")[0])
        elif self.look(path).kind != "file":
            raise FileNotFoundError(path)

    def step(self, operation: str, path: str) -> None:
        """Called before each operation that changes something. Tests override it to crash at that point."""


def open_storage(location: str | Path) -> Storage:
    """Return the storage at a local path, or at a URI that `pyarrow.fs` understands, such as
    ``s3://bucket/x``.

    Raises:
        StoreError: The address cannot be understood.
    """
    text = str(location)
    if not _REMOTE.match(text):
        return Storage(fs.LocalFileSystem(), str(Path(text).expanduser().absolute()))
    try:
        filesystem, root = fs.FileSystem.from_uri(text)
    except (OSError, pa.ArrowException, NotImplementedError) as error:
        raise StoreError(f"cannot read the store at {text!r}: {error}") from None
    return Storage(filesystem, root, address=text)


def sync_folder(folder: str | Path) -> None:
    """Wait until the names in a local folder are on the disk.

    Raises:
        OSError: The folder cannot be opened or synced.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _local_item(name: str, path: str, entry: os.DirEntry[str] | None = None) -> Item:
    try:
        found = Path(path).stat() if entry is None else entry.stat()
    except FileNotFoundError:
        # A link that leads nowhere is something: a name that is taken.
        kind: Kind = "other" if Path(path).is_symlink() else "missing"
        return Item(name=name, path=path, kind=kind, size=0, changed_ns=0)
    except OSError:  # such as a link that leads to itself
        return Item(name=name, path=path, kind="other", size=0, changed_ns=0)
    regular, folder = stat.S_ISREG(found.st_mode), stat.S_ISDIR(found.st_mode)
    return Item(
        name=name,
        path=path,
        kind="file" if regular else "folder" if folder else "other",
        size=found.st_size if regular else 0,
        changed_ns=found.st_mtime_ns,
    )


def _item(info: fs.FileInfo) -> Item:
    return Item(
        name=info.base_name,
        path=info.path,
        kind=_KINDS[info.type],
        size=info.size or 0,
        changed_ns=info.mtime_ns or 0,
    )
