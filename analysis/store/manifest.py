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

from pyarrow import fs

from analysis.errors import StoreError

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


def read_manifest(filesystem: fs.FileSystem, folder: str) -> Manifest:
    """The manifest of a study's folder; empty where there is none.

    Raises:
        StoreError: it cannot be read, or a newer version wrote it. Going on would lose or double rows.

    """
    path = f"{folder}/{MANIFEST}"
    try:
        with filesystem.open_input_file(path) as file:
            content = json.loads(file.read())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read the manifest {path}: {error}") from None
    try:
        if content["version"] > MANIFEST_VERSION:
            raise StoreError(
                f"{path} was written by a newer revstudy (manifest version {content['version']}, this one "
                f"reads {MANIFEST_VERSION}): update revstudy"
            )
        return {
            table: Entry(file=e["file"], rows=e["rows"], replaces=dict(e["replaces"]))
            for table, e in content["tables"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise StoreError(
            f"{path} is not a manifest: remove it only if no compact-*.parquet is left"
        ) from None


def manifest_bytes(manifest: Manifest) -> bytes:
    """The manifest as it is written."""
    content = {"version": MANIFEST_VERSION, "tables": {t: asdict(e) for t, e in sorted(manifest.items())}}
    return json.dumps(content, indent=1).encode() + b"\n"
