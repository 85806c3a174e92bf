"""Images through Hugging Face's `datasets`: memory-mapped Arrow files, from Parquet shards, a folder that
`datasets` has saved, or its hub.

Parquet is decompressed into the cache once, because an image in the middle of a row group cannot be read
alone.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from study.data.cache import cache_folder
from study.data.decode import decode
from study.errors import DataError
from study.settings.data import DataSettings

IMAGE_COLUMNS, LABEL_COLUMNS = ("img", "image"), ("label", "labels", "fine_label")

_SPLITS = {"train": ("train",), "val": ("validation", "valid", "val"), "test": ("test",)}


class TableReader:
    """The encoded images of a memory-mapped table.

    Args:
        table: Of `datasets`.
        column: Of the images.
        parts: Name and number of rows of each file that it was made of, in their order.
    """

    def __init__(self, table: Any, column: str, parts: Sequence[tuple[str, int]]) -> None:
        import datasets

        self._table = table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        self._column, self._names = column, [name for name, _ in parts]
        self._starts = [0, *accumulate(rows for _, rows in parts)]

    def __getitem__(self, position: int) -> tuple[bytes, str]:
        """The encoded image of a row, and what the row is called."""
        cell = self._table[position][self._column] or {}
        part = bisect_right(self._starts, position) - 1
        where = f"{self._names[part]} row {position - self._starts[part]}"
        content = cell.get("bytes")
        if content is None and cell.get("path"):
            where = f"{cell['path']} ({where})"
            content = read_file(Path(cell["path"]), where)
        return content or b"", where


class HubImages:
    """``hf:<name>``: a data set of the hub, or a folder in one of the layouts that `datasets` reads."""

    augments, flips, has_labels = True, True, True

    def __init__(self, settings: DataSettings) -> None:
        self._size, self._name = settings.image_size, settings.name
        self._tables = hub_tables(settings)
        self._columns = {split: _columns(table, settings.name) for split, table in self._tables.items()}
        self._labels = {
            split: torch.tensor(table.with_format("numpy")[self._columns[split][1]][:]).long()
            for split, table in self._tables.items()
        }
        self.num_classes = 1 + max(int(labels.max()) for labels in self._labels.values())

    def has(self, split: str) -> bool:
        """Whether the split exists."""
        return split in self._tables

    def labels(self, split: str) -> Tensor:
        """Labels of shape (N,)."""
        return self._labels[split]

    def reader(self, split: str) -> TableReader:
        """The encoded images of a split."""
        table = self._tables[split]
        return TableReader(table, self._columns[split][0], [(f"{self._name} {split}", table.num_rows)])

    def images(self, split: str, index: Tensor) -> Tensor:
        """Decoded images of shape (len(index), C, H, W)."""
        reader, size, found = self.reader(split), self._size, []
        for position in index.tolist():
            found.append(decode(reader[position][0], size, reader[position][1]))
            size = size or found[0].shape[-1]
        return torch.stack(found)


def parquet_table(files: Sequence[Path], settings: DataSettings) -> Any:
    """A memory-mapped table of Parquet shards, row by row in their order."""
    datasets = import_datasets(settings.name)
    folder = cache_folder(settings.root) / "datasets"
    with _quiet(datasets):
        return datasets.Dataset.from_parquet([str(f) for f in files], cache_dir=str(folder))


def hub_tables(settings: DataSettings) -> dict[str, Any]:
    """The tables of ``hf:<name>``, or ``hf:<name>@<revision>``, by split.

    Returns:
        At least ``train`` and ``test``. What is held out as validation alone is the test split.

    Raises:
        DataError: `datasets` is not installed, there is no such data set, or a split is missing.
    """
    datasets = import_datasets(settings.name)
    name, _, revision = settings.name.partition(":")[2].partition("@")
    place = Path(settings.root or ".").expanduser() / Path(name).expanduser()
    cache = str(cache_folder(settings.root) / "datasets")
    try:
        with _quiet(datasets):
            if (place / "dataset_dict.json").is_file():
                found: Mapping[str, Any] = datasets.load_from_disk(str(place))
            elif place.is_dir():
                found = datasets.load_dataset(str(place), cache_dir=cache)
            else:
                found = datasets.load_dataset(name, revision=revision or None, cache_dir=cache)
    except Exception as error:  # of the network, of files and of layouts, in classes of many libraries
        raise DataError(
            "data.name",
            value=settings.name,
            rule="must be a data set that Hugging Face's datasets can load",
            remedy=f"{type(error).__name__}: {(str(error).splitlines() or ['no reason given'])[0]}",
        ) from error
    tables = {split: found[stem] for split, stems in _SPLITS.items() for stem in stems if stem in found}
    if "test" not in tables and "val" in tables:
        tables["test"] = tables.pop("val")
    if not {"train", "test"} <= set(tables):
        raise DataError(
            "data.name",
            value=settings.name,
            rule="must have a train split, and a test or a validation split",
            remedy=f"it has {', '.join(found)}",
        )
    return tables


def hub_fingerprint(settings: DataSettings) -> str:
    """A hash of what `datasets` says of each split: columns, rows and, row by row, labels."""
    digest = hashlib.sha256()
    for split, table in sorted(hub_tables(settings).items()):
        label = _columns(table, settings.name)[1]
        digest.update(f"{split}/{table.num_rows}/{table.features}/".encode())
        digest.update(table.with_format("numpy")[label][:].tobytes())
        first = TableReader(table, _columns(table, settings.name)[0], [(settings.name, table.num_rows)])
        digest.update(first[0][0] + first[table.num_rows - 1][0])
    return digest.hexdigest()[:16]


def read_file(file: Path, where: str) -> bytes:
    """The content of an image file.

    Returns:
        Its bytes.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(
            "data.name",
            value=str(error.strerror),
            rule=f"{where} must be a file that can be read",
            remedy="put it back, or see its permissions",
        ) from error


def import_datasets(name: str) -> Any:
    """Hugging Face's `datasets`.

    Returns:
        The module.

    Raises:
        DataError: It is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "data.name",
            value=name,
            rule="needs Hugging Face's datasets, as images beyond memory do",
            remedy="pip install 'revstudy[data]'",
        ) from error
    return datasets


def _columns(table: Any, name: str) -> tuple[str, str]:
    """The names of the columns with images and with labels."""
    return _column(table, IMAGE_COLUMNS, name), _column(table, LABEL_COLUMNS, name)


def _column(table: Any, names: tuple[str, ...], data: str) -> str:
    for name in names:
        if name in table.column_names:
            return name
    raise DataError(
        "data.name",
        value=table.column_names,
        rule=f"{data} must have a column {' or '.join(names)}",
        remedy="rename the column as Hugging Face's image data sets do",
    )


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """A context without progress bars."""
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bar()
