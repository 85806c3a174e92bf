"""Where what is computed from a data set once is kept: folders under the hash of all that they follow from.

An entry is written in a folder of its own and renamed, so that it is whole or not there. Processes of one
machine wait for the one that writes; on several machines each may write, and the first to end is kept.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from study.errors import DataError


def cache_folder(root: str | None) -> Path:
    """REVSTUDY_CACHE; else ``.revstudy`` in the data root if that can be written to; else the user's cache.

    Args:
        root: data.root of the study file, or None.

    Returns:
        The folder, which need not exist.
    """
    if named := os.environ.get("REVSTUDY_CACHE"):
        return Path(named).expanduser()
    home = root or os.environ.get("REVSTUDY_DATA")
    if home and Path(home).expanduser().is_dir() and os.access(Path(home).expanduser(), os.W_OK):
        return Path(home).expanduser() / ".revstudy"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "revstudy"


def cached(folder: Path, key: str, write: Callable[[Path], None]) -> Path:
    """The folder of an entry, which `write` fills if it is not there.

    Args:
        folder: The cache.
        key: The hash of everything that the entry follows from.
        write: Fills the empty folder that it is given.

    Returns:
        The entry, whole.

    Raises:
        DataError: The cache cannot be written to.
    """
    entry = folder / key
    if entry.is_dir():
        return entry
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _turn(folder / f"{key}.lock"):
            if entry.is_dir():
                return entry
            part = Path(tempfile.mkdtemp(prefix=f"{key}.", suffix=".part", dir=folder))
            try:
                write(part)
                part.chmod(0o755)
                _renamed(part, entry)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise DataError(
            "data.root",
            value=str(folder),
            rule="what is made from the data once must be kept on disk, and this folder cannot be written to",
            remedy=f"set REVSTUDY_CACHE to another folder ({error.strerror})",
        ) from error
    return entry


def _renamed(part: Path, entry: Path) -> None:
    try:
        part.rename(entry)
    except OSError:
        if not entry.is_dir():  # else another machine has written the same
            raise


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Hold a lock of this machine while inside; where the file system has none, hold nothing."""
    with path.open("w") as lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    path.unlink(missing_ok=True)
