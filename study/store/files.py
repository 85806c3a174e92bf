"""The files of a results store: written once, whole or not at all, on a folder or in object storage.

A file is written under a dot-prefixed name, synced, and renamed, so that no killed writer leaves, and no
reader sees, a part of one under its name.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from analysis.store.objects import objects_at
from analysis.store.storage import open_storage
from study.errors import StoreError

_REMOTE = re.compile(r"[a-z][a-z0-9+.-]+://")


def located(store: str | Path) -> str:
    """The same store, named so that processes in other working directories find it."""
    text = str(store)
    return text if _REMOTE.match(text) else str(Path(text).expanduser().absolute())


def open_filesystem(store: str | Path) -> tuple[fs.FileSystem, str]:
    """The file system that holds a store, and the store's path on it.

    Raises:
        StoreError: The address of the store cannot be understood.
    """
    text = located(store)
    if not _REMOTE.match(text):
        return fs.LocalFileSystem(), text
    with store_errors(store, "opened"):
        filesystem, root = _remote(text)
    return filesystem, root.rstrip("/")


@lru_cache(maxsize=16)
def _remote(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URI; a process connects once."""
    return fs.FileSystem.from_uri(uri)


def local_folder(store: str | Path) -> Path | None:
    """The store as a folder of this machine or of a shared mount; None for object storage."""
    filesystem, root = open_filesystem(store)
    return Path(root) if isinstance(filesystem, fs.LocalFileSystem) else None


def write_file(store: str | Path, name: str, content: bytes) -> None:
    """Write a file of the store, whole under its name or not at all; one of that name is replaced.

    Raises:
        StoreError: It cannot be written; nothing is left behind.
    """
    folder = local_folder(store)
    with store_errors(store, "written"):
        if folder is not None:
            _write_local(folder / name, content)
        else:  # object storage shows an object only once its upload is complete
            objects_at(located(store)).put(name, content)


def create_file(store: str | Path, name: str, content: bytes) -> bool:
    """Write a file of the store unless there is one of that name; returns whether it was written.

    Raises:
        StoreError: It cannot be written; nothing is left behind.
    """
    folder = local_folder(store)
    with store_errors(store, "written"):
        if folder is not None:
            return _write_local(folder / name, content, replace=False)
        return objects_at(located(store)).write(name, content, expected=None) is not None


def read_file(store: str | Path, name: str) -> bytes | None:
    """The content of a file of the store; None if there is none.

    Raises:
        StoreError: It cannot be read.
    """
    folder = local_folder(store)
    with store_errors(store, "read"):
        if folder is None:
            found = objects_at(located(store)).read(name)
            return None if found is None else found.content
        try:
            return open_storage(folder).read(str(folder / name))  # never a pipe, which would not answer
        except FileNotFoundError:
            return None


def file_exists(store: str | Path, name: str) -> bool:
    """Whether the store has a file of this name.

    Raises:
        StoreError: The store cannot be read.
    """
    filesystem, root = open_filesystem(store)
    with store_errors(store, "read"):
        return bool(filesystem.get_file_info(f"{root}/{name}").type != fs.FileType.NotFound)


def remove_file(store: str | Path, name: str) -> None:
    """Remove a file of the store, if it is there.

    Raises:
        StoreError: It cannot be removed.
    """
    folder = local_folder(store)
    with store_errors(store, "written"):
        if folder is None:
            objects_at(located(store)).remove(name)
        else:
            (folder / name).unlink(missing_ok=True)


def _write_local(path: Path, content: bytes, *, replace: bool = True) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name.lstrip('.')}.{uuid.uuid4().hex[:8]}"
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if replace:
            temporary.replace(path)
        else:
            os.link(temporary, path)
            temporary.unlink()
    except FileExistsError:
        temporary.unlink(missing_ok=True)
        return False
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True


@contextlib.contextmanager
def store_errors(store: str | Path, action: str) -> Iterator[None]:
    """Turn what a file system says into a `StoreError`: the store could not be `action`."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StoreError(
            value=str(store),
            rule=f"the store could not be {action} ({reason})",
            remedy="choose another folder with --store or REVSTUDY_STORE",
        ) from None
