"""Images in files: Parquet shards in Hugging Face's layout, and folders with one subfolder for each class.

Both tell labels without decoding images, so that a subset is chosen first and only that is decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from study.data.decode import decode
from study.data.fingerprint import folder_files, parquet_files, torn
from study.data.hub import IMAGE_COLUMNS, LABEL_COLUMNS, TableReader, parquet_table, read_file
from study.data.lazy import Reader
from study.errors import DataError
from study.settings.data import DataSettings


class ParquetImages:
    """The image layout of Hugging Face: ``train-*.parquet`` with columns img or image, and label."""

    augments, flips, has_labels = True, True, True

    def __init__(self, folder: Path, settings: DataSettings) -> None:
        self._settings, self._size = settings, settings.image_size
        self._files = parquet_files(folder, settings.name)
        self._labels = {split: self._read_labels(files) for split, files in self._files.items()}
        self.num_classes = _count_classes(self._labels.values())

    def has(self, split: str) -> bool:
        """Whether a shard of the split exists."""
        return split in self._files

    def labels(self, split: str) -> Tensor:
        """Labels of shape (N,)."""
        return self._labels[split]

    def images(self, split: str, index: Tensor) -> Tensor:
        """Decoded images of shape (len(index), C, H, W); only those asked for are decoded."""
        wanted = {int(row): place for place, row in enumerate(index.tolist())}
        decoded = _Gathered(len(wanted))
        size, start = self._size, 0
        for file in self._files[split]:
            with _opened(file) as parquet:
                column = _column(parquet, IMAGE_COLUMNS, file)
                for group in range(parquet.num_row_groups):
                    count = parquet.metadata.row_group(group).num_rows
                    rows = [row for row in range(count) if start + row in wanted]
                    if rows:
                        cells = parquet.read_row_group(group, columns=[column]).column(0).combine_chunks()
                        content = cells.field("bytes") if hasattr(cells, "field") else cells
                        for row in rows:
                            image = decode(content[row].as_py(), size, f"{file} row {row}")
                            size = size or image.shape[-1]
                            decoded.put(wanted[start + row], image)
                    start += count
        return decoded.images_NCHW

    def reader(self, split: str) -> Reader:
        """The encoded images of a split, in a memory-mapped table that is made of the shards once."""
        files = self._files[split]
        parts = []
        for file in files:
            with _opened(file) as parquet:
                column = _column(parquet, IMAGE_COLUMNS, file)
                parts.append((str(file), parquet.metadata.num_rows))
        return TableReader(parquet_table(files, self._settings), column, parts)

    def _read_labels(self, files: list[Path]) -> Tensor:
        parts = []
        for file in files:
            with _opened(file) as parquet:
                column = _column(parquet, LABEL_COLUMNS, file)
                _column(parquet, IMAGE_COLUMNS, file)
                parts.append(
                    torch.from_numpy(parquet.read(columns=[column]).column(0).to_numpy().copy()).long()
                )
        return torch.cat(parts)


class FolderImages:
    """Folders of images: ``train/<class>/*`` and ``test/<class>/*`` (or ``val`` where there is no test)."""

    augments, flips, has_labels = True, True, True

    def __init__(self, folder: Path, settings: DataSettings, default_size: int | None = None) -> None:
        self._size = settings.image_size or default_size
        self._files, labels, self.classes = folder_files(folder, settings.name)
        self._labels = {split: torch.tensor(found) for split, found in labels.items()}
        self.num_classes = len(self.classes)

    def has(self, split: str) -> bool:
        """Whether the split has a folder."""
        return split in self._files

    def labels(self, split: str) -> Tensor:
        """Labels of shape (N,): positions in the sorted names of the classes."""
        return self._labels[split]

    def images(self, split: str, index: Tensor) -> Tensor:
        """Decoded images of shape (len(index), C, H, W), resized to a common square."""
        decoded = _Gathered(len(index))
        size, reader = self._size or self._size_of_first(), self.reader(split)
        for place, position in enumerate(index.tolist()):
            content, where = reader[position]
            decoded.put(place, decode(content, size, where))
        return decoded.images_NCHW

    def reader(self, split: str) -> Reader:
        """The encoded images of a split."""
        return FileReader(self._files[split])

    def _size_of_first(self) -> int:
        content, where = self.reader("train")[0]
        return min(decode(content, None, where).shape[-2:])


class FileReader:
    """Images in files of their own. Paths are kept in one table, which processes share."""

    def __init__(self, files: list[Path]) -> None:
        import pyarrow as pa

        self._files = pa.array([str(file) for file in files])

    def __getitem__(self, position: int) -> tuple[bytes, str]:
        """The content of a file, and its path."""
        path = self._files[position].as_py()
        return read_file(Path(path), path), path


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """An open `pyarrow.parquet.ParquetFile`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        raise torn(file) from error


class _Gathered:
    """Decoded images that are put into one tensor at once, so that they are in memory once."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.images_NCHW = torch.empty(count, 0, 0, 0, dtype=torch.uint8)
        self._begun = False

    def put(self, place: int, image: Tensor) -> None:
        """Put an image in its place.

        Raises:
            DataError: It is of another size than those before.
        """
        if not self._begun:
            self.images_NCHW = torch.empty(self._count, *image.shape, dtype=torch.uint8)
            self._begun = True
        shape = self.images_NCHW.shape[1:]
        if shape[1:] != image.shape[1:]:
            raise DataError(
                "data.image_size",
                value=sorted({tuple(shape), tuple(image.shape)}),
                rule="images must be of one size",
                remedy="set data.image_size",
            )
        # A single gray image among colored ones is a matter of encoding, not of content.
        if shape[0] < image.shape[0]:
            self.images_NCHW = self.images_NCHW.expand(-1, image.shape[0], -1, -1).contiguous()
        self.images_NCHW[place] = image


def _column(parquet: Any, names: Iterable[str], file: Path) -> str:
    held = parquet.schema_arrow.names
    for name in names:
        if name in held:
            return name
    raise DataError(
        "data.name",
        value=held,
        rule=f"{file.name} must have a column {' or '.join(names)}",
        remedy="rename the column as Hugging Face's image data sets do",
    )


def _count_classes(labels: Iterable[Tensor]) -> int:
    return int(max(int(part.max()) for part in labels)) + 1
