"""Token ids that others have written, memory-mapped: ``tokens:<path>``.

The path is a folder with ``train.bin``, ``val.bin`` and ``test.bin`` (or .npy; numbered shards are not read),
or one such file, whose last parts are held out. A .bin holds uint16, bare or behind the header of llm.c; a
.npy says its type. ``meta.json`` beside them may say the rest: ``dtype`` (uint16 or uint32), ``tokenizer``
(``bytes``, or ``file:`` and a path from there), ``vocabulary_size`` and ``document_id``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from study.data.text_files import SPLITS, Fractions
from study.data.token_paths import META, token_paths
from study.errors import DataError

_HEADERS = {20240520: np.uint16, 20240801: np.uint32}
"""Of llm.c's .bin files: the first of 256 int32, and the type of what follows."""
_HEADER_BYTES = 1024

_CHUNK = 1 << 24


@dataclass(frozen=True, kw_only=True)
class TokenFiles:
    """Token ids by split, and what is known of them.

    Attributes:
        streams: A memory-mapped array of each split.
        tokenizer: ``bytes``, ``file:<absolute path>``, or None where it is not said.
        vocabulary_size: As said, or one more than the highest id.
        document_id: The token that begins a document, or None where it is not said.
    """

    streams: dict[str, np.ndarray]
    tokenizer: str | None
    vocabulary_size: int
    document_id: int | None


@dataclass(frozen=True, kw_only=True)
class _Meta:
    place: str
    values: dict[str, Any] = field(default_factory=dict)

    def number(self, name: str, *, above: int) -> int | None:
        value = self.values.get(name)
        if value is not None and (type(value) is not int or value <= above):
            _meta_error(self.place, {name: value}, f"must be a whole number above {above}")
        return value


def open_tokens(name: str, root: str | None, fractions: Fractions) -> TokenFiles:
    """Map the files of a name into memory, and look for the highest id.

    Returns:
        The streams and what is known of them.

    Raises:
        DataError: A file is not of the layout, a split is missing, or an id is beyond the vocabulary.
    """
    files = token_paths(name, root)
    meta = _read_meta(files[0].path.parent / META)
    arrays = [_mapped(file.path, meta) for file in files]
    if len(files) == 1:
        size = len(arrays[0])
        ends = [0, int(size * (1 - fractions.val - fractions.test)), int(size * (1 - fractions.test)), size]
        streams = {
            split: arrays[0][start:end] for split, start, end in zip(SPLITS, ends, ends[1:], strict=False)
        }
    else:
        streams = {file.splits[0]: array for file, array in zip(files, arrays, strict=True)}
    highest = max(_highest(stream) for stream in streams.values())
    said = meta.number("vocabulary_size", above=0)
    if said is not None and highest >= said:
        _meta_error(meta.place, {"vocabulary_size": said}, f"must be above the highest id, {highest}")
    return TokenFiles(
        streams=streams,
        tokenizer=_tokenizer(meta, files[0].path.parent),
        vocabulary_size=said or highest + 1,
        document_id=meta.number("document_id", above=-1),
    )


def _tokenizer(meta: _Meta, folder: Path) -> str | None:
    name = meta.values.get("tokenizer")
    if name in (None, "bytes"):
        return name
    if not isinstance(name, str) or not name.startswith("file:"):
        _meta_error(meta.place, {"tokenizer": name}, "must be bytes, or file: and a path")
    return f"file:{(folder / name.removeprefix('file:')).absolute()}"


def _read_meta(file: Path) -> _Meta:
    if not file.is_file():
        return _Meta(place=str(file))
    try:
        values = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        _meta_error(str(file), str(error), "must be JSON")
    if not isinstance(values, dict):
        _meta_error(str(file), values, "must be a JSON object")
    if values.get("dtype", "uint16") not in ("uint16", "uint32"):
        _meta_error(str(file), {"dtype": values["dtype"]}, "must be uint16 or uint32")
    return _Meta(place=str(file), values=values)


def _mapped(file: Path, meta: _Meta) -> np.ndarray:
    try:
        if file.suffix == ".npy":
            array = np.load(file, mmap_mode="r")
        else:
            kind, offset = np.dtype(meta.values.get("dtype", "uint16")), 0
            with file.open("rb") as stream:
                first = int.from_bytes(stream.read(4), "little")
            if first in _HEADERS:
                kind, offset = np.dtype(_HEADERS[first]), _HEADER_BYTES
            if (file.stat().st_size - offset) % kind.itemsize:
                raise ValueError(f"its size is no multiple of {kind.itemsize} bytes")
            array = np.memmap(file, dtype=kind, mode="r", offset=offset)
    except (ValueError, OSError) as error:  # of NumPy: an empty file, another format
        raise DataError(
            "data.name", value=str(file), rule="must be a file of token ids", remedy=str(error)
        ) from error
    if array.ndim != 1 or array.dtype.kind not in "ui":
        raise DataError(
            "data.name",
            value=f"{file}: {array.dtype} of shape {array.shape}",
            rule="must hold whole numbers in one dimension",
            remedy="write it flat, as uint16 or uint32",
        )
    return array


def _highest(stream: np.ndarray) -> int:
    """The highest id of a stream, read in chunks.

    Returns:
        -1 for an empty stream.

    Raises:
        DataError: An id is negative.
    """
    highest, lowest = -1, 0
    for start in range(0, len(stream), _CHUNK):
        chunk = stream[start : start + _CHUNK]
        highest, lowest = max(highest, int(chunk.max())), min(lowest, int(chunk.min()))
    if lowest < 0:
        raise DataError("data.name", value=lowest, rule="token ids must not be negative", remedy="")
    return highest


def _meta_error(place: str, value: object, rule: str) -> NoReturn:
    raise DataError("data.name", value=value, rule=f"{place}: {rule}", remedy="mend it, or leave it out")
