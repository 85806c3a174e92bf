"""Removes what killed runs left in a store, and what nobody needs any more."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from pyarrow import fs

from study.store.files import local_folder, open_filesystem, remove_file, store_errors
from study.store.leases import remove_dead

_CHECKPOINT = re.compile(r"/checkpoints/(?P<trial>[^/.]+)\.pt$")
_TEMPORARY = re.compile(r"\.[^/]+\.[0-9a-f]{8}|\.(now|taken)-[0-9a-f]{32}|\.write-test-[0-9a-f]{8}")
OLD_S = 3600.0


def tidy(store: str | Path, done: Collection[str]) -> None:
    """Remove the checkpoints of trials that are done, leases that count no more, and old parts of files.

    A run that is killed between the row of a trial and the removal of its checkpoint leaves the latter, and
    one that is killed while it writes a file under a temporary name. Those of the last hour may be in use.

    Raises:
        StoreError: The store cannot be read, or not be written.
    """
    filesystem, root = open_filesystem(store)
    with store_errors(store, "read"):
        found = filesystem.get_file_info(fs.FileSelector(f"{root}/checkpoints", allow_not_found=True))
    for info in found:
        match = _CHECKPOINT.search(info.path)
        if match and match["trial"] in done:
            remove_file(store, f"checkpoints/{info.base_name}")
    remove_dead(store, done)
    _remove_parts(store)


def _remove_parts(store: str | Path) -> None:
    folder = local_folder(store)
    if folder is None:
        return  # object storage shows no parts
    with store_errors(store, "written"):
        newest = max((path.stat().st_mtime for path in folder.glob("study=*/study.json")), default=0.0)
        for part in [*folder.glob(".*"), *folder.glob("*/.*"), *folder.glob("study=*/*/.*")]:
            if part.is_file() and _TEMPORARY.fullmatch(part.name) and part.stat().st_mtime < newest - OLD_S:
                part.unlink(missing_ok=True)
