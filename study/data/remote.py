"""Files of an object store, copied once into the cache of each machine: ``folder:s3://bucket/images``."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NoReturn

from study.data.cache import cache_folder, cached
from study.errors import DataError


def is_remote(place: str) -> bool:
    """Whether a path is a URI."""
    return "://" in place


def local_copy(uri: str, root: str | None) -> Path:
    """A folder or file of an object store, as it is now.

    Args:
        uri: As `pyarrow.fs.FileSystem.from_uri` understands it.
        root: data.root of the study file, or None.

    Returns:
        Its copy on this machine. What has changed there is copied anew.

    Raises:
        DataError: It does not exist or cannot be read.
    """
    import pyarrow as pa
    from pyarrow import fs

    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
        place = filesystem.get_file_info(path)
        if place.type == fs.FileType.File:
            infos = [place]
        else:
            found = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
            infos = [info for info in found if info.type == fs.FileType.File]
    except (pa.ArrowException, OSError, ValueError) as error:
        _refuse(uri, str(error))
    if not infos:
        _refuse(uri, "there are no files under it")
    listing = "\n".join(sorted(f"{info.path} {info.size} {info.mtime_ns}" for info in infos))
    key = hashlib.sha256(f"{uri}\n{listing}".encode()).hexdigest()[:32]
    base = path if place.type != fs.FileType.File else path.rpartition("/")[0]

    def write(folder: Path) -> None:
        for info in infos:
            target = folder / info.path.removeprefix(base).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            fs.copy_files(info.path, str(target), filesystem, fs.LocalFileSystem())

    entry = cached(cache_folder(root), f"remote-{key}", write)
    return entry if place.type != fs.FileType.File else entry / path.rpartition("/")[2]


def _refuse(uri: str, reason: str) -> NoReturn:
    raise DataError(
        "data.name",
        value=reason,
        rule=f"{uri.partition('?')[0]} must hold files that can be read",
        remedy="see the address, and the credentials of this machine",
    )
