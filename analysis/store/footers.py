"""Sorts local Parquet files by their layout, told by the bytes of their footers.

A footer is the schema, the row groups and the key-value metadata, in this order (Apache Parquet,
*File Format*). Files of one writer and one schema agree in the first and the last of these to the byte, so a
footer is parsed once for a layout and compared for the files after that: 20 µs a file in place of 500.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.errors import StoreError
from analysis.schema import SCHEMA_VERSION, VERSION_KEY

_MAGIC = b"PAR1"
_TAIL = 32_768  # the footers of trials are half of this
_MOST_LAYOUTS = 64
_METADATA = b"ARROW:schema"


@dataclass(frozen=True, kw_only=True)
class SkippedFile:
    """A file under the store that was left out, and why."""

    path: str
    reason: str


class VanishedError(Exception):
    """A listed file is gone: it was merged into another after the listing. List again."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What files of one writer have in common.

    Attributes:
        columns: names of the top-level columns.
        types: their types.
        version: the schema version they carry, None without one.

    """

    columns: tuple[str, ...]
    types: tuple[str, ...]
    version: str | None


def by_layout(paths: Iterable[str]) -> tuple[dict[Layout, list[str]], list[SkippedFile]]:
    """Groups files by layout; sets aside those that are torn, not Parquet, or cannot be read.

    Raises:
        VanishedError: a file is not there.

    """
    layouts: dict[Layout, list[str]] = {}
    known: list[tuple[bytes, bytes, Layout]] = []
    skipped = []
    for path in paths:
        try:
            footer = _footer(path)
            layout = next((of for head, tail, of in known if _agrees(footer, head, tail)), None)
            if layout is None:
                layout = _parsed(path)
                if len(known) < _MOST_LAYOUTS and (ends := _ends(footer, layout)):
                    known.append((*ends, layout))
        except FileNotFoundError:
            raise VanishedError(path) from None
        except _BadFileError as error:
            skipped.append(SkippedFile(path=path, reason=str(error)))
        except (pa.ArrowException, OSError, ValueError) as error:
            first_line = (getattr(error, "strerror", None) or str(error)).partition("\n")[0]
            skipped.append(SkippedFile(path=path, reason=f"cannot be read: {first_line[:200]}"))
        else:
            layouts.setdefault(layout, []).append(path)
    return layouts, skipped


def foreign(path: str, version: str | None) -> str | None:
    """Says why a file with this schema version is left out, or None.

    Raises:
        StoreError: the version is newer than this reader.

    """
    if version is None:
        return "foreign: it carries no schema version of this project"
    if not version.isdecimal():
        return f"foreign: its schema version {version!r} is not a number"
    if int(version) > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written under schema version {version}, and this revstudy reads versions up to "
            f"{SCHEMA_VERSION}: update revstudy"
        )
    return None


class _BadFileError(Exception):
    """A file whose first or last bytes are not those of a whole Parquet file."""


def _footer(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, _TAIL, max(size - _TAIL, 0))
        head = tail[:4] if size <= _TAIL else os.pread(descriptor, 4, 0)
        if head != _MAGIC:
            raise _BadFileError("not a Parquet file")
        length = int.from_bytes(tail[-8:-4], "little")
        if tail[-4:] != _MAGIC or size < 12 or length > size - 12:
            raise _BadFileError("torn: it does not end as a Parquet file does")
        if length + 8 > len(tail):
            tail = os.pread(descriptor, length + 8, size - length - 8)
        return tail[-8 - length : -8]
    finally:
        os.close(descriptor)


def _agrees(footer: bytes, head: bytes, tail: bytes) -> bool:
    return footer.startswith(head) and footer.endswith(tail)


def _ends(footer: bytes, layout: Layout) -> tuple[bytes, bytes] | None:
    """The bytes of a footer up to its last column's name, and from the Arrow schema in its metadata on.

    The Arrow schema holds names, types and the schema version. None where there is no such schema.
    """
    tail = footer.rfind(_METADATA)
    last = layout.columns[-1].encode() if layout.columns else b""
    head = footer.find(last) + len(last)
    return (footer[:head], footer[tail:]) if 0 < head < tail else None


def _parsed(path: str) -> Layout:
    schema = pq.read_schema(path)
    version = (schema.metadata or {}).get(VERSION_KEY)
    return Layout(
        columns=tuple(schema.names),
        types=tuple(str(type) for type in schema.types),
        version=version.decode(errors="replace") if version else None,
    )
