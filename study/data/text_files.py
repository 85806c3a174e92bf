"""The files of a text and the split of each, and the identity of what they hold. It imports no torch.

A text is a file, or a folder with all files below it. Its splits are

- those that it names: folders ``train``, ``val`` and ``test``, or files such as ``train-00000.parquet``,
  ``valid.txt`` and ``wiki.test.raw``; what bears no such name beside them is left out;
- otherwise by a hash of each file's path, and in Parquet and JSON lines of each row, so that no document is
  in two splits and a new file moves none of the others;
- of a single file of plain text: its last parts, cut at ends of lines.
"""

from __future__ import annotations

import hashlib
import os
import re
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from study.data.remote import is_remote, local_copy
from study.errors import DataError, nearest

SPLITS = ("train", "val", "test")

ROWS = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""Files that hold a document in each row. All others are one document of plain text."""

_NAMED = re.compile(r"(?:^|[._-])(train|validation|valid|val|test)(?:[._-]|\d|$)")
_NAMED_FOLDERS = {"train", "validation", "valid", "val", "test"}
_NAMED_SUFFIXES = {*ROWS, ".txt", ".md", ".raw", ".tokens", ".text"}

_NOT_IN_STDLIB = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}

WHOLE_BYTES = 64 << 20
"""Files of up to this size are hashed whole; of larger ones, blocks that are spread evenly, and the size."""
_BLOCKS, _BLOCK_BYTES = 64, 1 << 20


@dataclass(frozen=True, kw_only=True)
class TextFile:
    """One file: where it is, its name in the corpus, and the splits that its documents are drawn to."""

    path: Path
    key: str
    splits: tuple[str, ...] = SPLITS

    @property
    def rows(self) -> str | None:
        """``parquet`` or ``jsonl`` if every row is a document, else None."""
        return ROWS.get(self.path.suffix.lower())


def text_files(name: str, root: str | None) -> list[TextFile]:
    """The files of ``stdlib`` or ``text:<path>``, sorted by key.

    Args:
        name: As the study file gives it.
        root: Where a relative path starts; None is the working directory.

    Returns:
        At least one file.

    Raises:
        DataError: There is no such path, no file in it, or a named split is missing.
    """
    if name == "stdlib":
        return stdlib_files()
    place = path_of(name, root)
    if place.is_file():
        return [TextFile(path=place, key=place.name)]
    found = sorted(f for f in place.rglob("*") if f.is_file() and not _hidden(f.relative_to(place)))
    files = [TextFile(path=f, key=f.relative_to(place).as_posix()) for f in found]
    if not files:
        raise DataError(
            "data.name", value=name, rule="the folder holds no files", remedy="name one that holds text"
        )
    return _with_named_splits(files, name)


def stdlib_files() -> list[TextFile]:
    """The Python files of the running Python's library, without tests and what a build writes."""
    home = Path(sysconfig.get_path("stdlib"))
    found = []
    for folder, inner, names in os.walk(home):
        inner[:] = [name for name in inner if name not in _NOT_IN_STDLIB]
        paths = [Path(folder, name) for name in names if name.endswith(".py")]
        found += [
            TextFile(path=path, key=path.relative_to(home).as_posix())
            for path in paths
            if not path.name.startswith("_sysconfigdata")
        ]
    if not found:
        raise DataError(
            "data.name",
            value="stdlib",
            rule=f"this Python's library is not there as files ({home})",
            remedy="use text:<path>",
        )
    return sorted(found, key=lambda file: file.key)


def path_of(name: str, root: str | None) -> Path:
    """The file or folder after the colon; a relative one is below `root`, or else the working directory.

    Returns:
        An existing path.

    Raises:
        DataError: It does not exist.
    """
    rest = name.partition(":")[2]
    if is_remote(rest):
        return local_copy(rest, root)
    place = Path(root or ".").expanduser() / Path(rest).expanduser()
    if not place.exists():
        beside = sorted(p.name for p in place.parent.iterdir())[:20] if place.parent.is_dir() else []
        remedy = nearest(place.name, beside) if beside else f"there is no folder {place.parent}"
        raise DataError("data.name", value=name, rule="must name an existing file or folder", remedy=remedy)
    return place


@dataclass(frozen=True, kw_only=True)
class Fractions:
    """The shares of the documents that are held out, where a text does not name these splits."""

    val: float
    test: float

    def among(self, splits: tuple[str, ...]) -> Fractions:
        """The same shares, with none for a split that documents are not drawn to."""
        val, test = (
            share if split in splits else 0.0 for split, share in (("val", self.val), ("test", self.test))
        )
        return Fractions(val=val, test=test)


def split_of(key: str, splits: tuple[str, ...], fractions: Fractions) -> str:
    """The split that a document is drawn to by a hash of its key, whatever other documents there are."""
    if len(splits) == 1:
        return splits[0]
    shares = fractions.among(splits)
    drawn = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    if drawn < shares.test:
        return "test"
    return "val" if drawn < shares.test + shares.val else "train"


def digest_of(files: Iterable[TextFile]) -> str:
    """A hash of names and contents, the same wherever the files lie: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for file in files:
        stat = file.path.stat()
        content = file_digest(file.path, stat.st_size, stat.st_mtime_ns)
        digest.update(f"{file.key}\0{stat.st_size}\0{content}\n".encode())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=65_536)
def file_digest(path: Path, size: int, _changed_ns: int) -> str:
    """A hash of a file's content; the size and the time of its last change say when to read it again."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        if size <= WHOLE_BYTES:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
        else:
            for number in range(_BLOCKS):
                stream.seek(number * (size - _BLOCK_BYTES) // (_BLOCKS - 1))
                digest.update(stream.read(_BLOCK_BYTES))
    return digest.hexdigest()


def named_split(name: str) -> str | None:
    """The split that the name of a file or folder says.

    Returns:
        ``train``, ``val`` or ``test``, or None.

    >>> named_split("wiki.valid.raw"), named_split("trains.txt")
    ('val', None)
    """
    match = _NAMED.search(name.lower())
    return None if match is None else {"train": "train", "test": "test"}.get(match[1], "val")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _with_named_splits(files: list[TextFile], name: str) -> list[TextFile]:
    """The files with the splits that they name, or the same files if they name none."""
    named = {file: split for file in files if (split := _named_by(file)) is not None}
    splits = set(named.values())
    if "train" not in splits:
        return files
    if splits == {"train"}:
        raise DataError(
            "data.name",
            value=name,
            rule="it names a train split, and so must name val or test too",
            remedy="add val and test, or rename train so that documents are drawn to the splits",
        )
    if "test" not in splits:  # what is held out tests, and validation is drawn from the training documents
        named = {file: "test" if split == "val" else split for file, split in named.items()}
    train = ("train",) if "val" in named.values() else ("train", "val")
    return [
        TextFile(path=file.path, key=file.key, splits=train if split == "train" else (split,))
        for file, split in named.items()
    ]


def _named_by(file: TextFile) -> str | None:
    first, *rest = file.key.removeprefix("data/").split("/")
    if rest:
        return named_split(first) if first in _NAMED_FOLDERS else None
    return named_split(first) if file.path.suffix.lower() in _NAMED_SUFFIXES else None
