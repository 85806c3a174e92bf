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
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

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
        filesystem, root = fs.FileSystem.from_uri(text)
    return filesystem, root.rstrip("/")


def local_folder(store: str | Path) -> Path | None:
    """The store as a folder of this machine or of a shared mount; None for object storage."""
    filesystem, root = open_filesystem(store)
    return Path(root) if isinstance(filesystem, fs.LocalFileSystem) else None


def write_file(store: str | Path, name: str, content: bytes) -> None:
    """Write a file of the store, whole under its name or not at all; one of that name is replaced.

    Raises:
        StoreError: It cannot be written; nothing is left behind.
    """
    filesystem, root = open_filesystem(store)
    with store_errors(store, "written"):
        if isinstance(filesystem, fs.LocalFileSystem):
            _write_local(Path(root) / name, content)
        else:
            # Object storage shows an object only once its upload is complete.
            with filesystem.open_output_stream(f"{root}/{name}") as stream:
                stream.write(content)


def remove_file(store: str | Path, name: str) -> None:
    """Remove a file of the store, if it is there.

    Raises:
        StoreError: It cannot be removed.
    """
    filesystem, root = open_filesystem(store)
    with store_errors(store, "written"):
        if filesystem.get_file_info(f"{root}/{name}").type != fs.FileType.NotFound:
            with contextlib.suppress(FileNotFoundError):
                filesystem.delete_file(f"{root}/{name}")


def _write_local(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name.lstrip('.')}.{uuid.uuid4().hex[:8]}"
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
