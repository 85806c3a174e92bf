"""The manifest of a study's folder: which merged file stands for which files of single trials.

``study=<name>/compact.json`` names, for each table, the one merged file that counts and the files whose rows
it holds. A reader lists the folder first and reads the manifest after that: it takes the merged file, and
leaves out the files that it replaces and every merged file that the manifest does not name. So at no moment
is a row read twice, or not at all, however far a merge has come.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field

from analysis.errors import StoreError
from analysis.store.storage import Storage

MANIFEST = "compact.json"
MANIFEST_VERSION = 1
MERGED = re.compile(r"compact-[0-9a-f]{16}\.parquet")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One table of a manifest.

    Attributes:
        file: name of the merged file in the table's folder.
        rows: how many rows it holds.
        replaces: name and size in bytes of the files in the same folder whose rows it holds, and that may
            still be there. A file of that name and another size is a new one.

    """

    file: str
    rows: int
    replaces: dict[str, int] = field(default_factory=dict)


Manifest = dict[str, Entry]
"""Entries by table name."""


def read_manifest(storage: Storage, folder: str) -> Manifest:
    """Return the manifest of a study's folder; empty where there is none.

    Raises:
        StoreError: It cannot be read, or a newer version wrote it. Going on would lose or double rows.
    """
    path = f"{folder}/{MANIFEST}"
    try:
        content = json.loads(storage.read(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"cannot read the manifest {path}: {error}") from None
    try:
        if content["version"] > MANIFEST_VERSION:
            raise StoreError(
                f"{path} was written by a newer revstudy (manifest version {content['version']}, this one "
                f"reads {MANIFEST_VERSION}): update revstudy"
            )
        return {
            str(table): Entry(
                file=_name(e["file"]),
                rows=int(e["rows"]),
                replaces={_name(name): int(size) for name, size in e["replaces"].items()},
            )
            for table, e in content["tables"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise StoreError(
            f"{path} is not a manifest: remove it only if no compact-*.parquet is left"
        ) from None


def write_manifest(storage: Storage, folder: str, manifest: Manifest) -> None:
    """Swaps the manifest of a study's folder for this one, and reads it back.

    Raises:
        StoreError: It does not read back as it was written.
        OSError: It cannot be written.
    """
    content = {"version": MANIFEST_VERSION, "tables": {t: asdict(e) for t, e in sorted(manifest.items())}}
    storage.write(f"{folder}/{MANIFEST}", json.dumps(content, indent=1).encode() + b"\n")
    if read_manifest(storage, folder) != manifest:
        raise StoreError(
            f"the manifest {folder}/{MANIFEST} does not read back as it was written: another process has "
            "changed it. No file was deleted; run `revstudy compact` again"
        )


def _name(text: object) -> str:
    """A plain name of a file: one with a path in it could name a file outside of the store."""
    if not isinstance(text, str) or not text or "/" in text or "\\" in text:
        raise ValueError(text)
    return text
