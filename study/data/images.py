"""Images in files: Parquet shards in Hugging Face's layout, and folders with one subfolder for each class.

Both tell labels without decoding images, so that a subset is chosen first and only that is decoded.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from study.data.fingerprint import folder_files, parquet_files, torn
from study.errors import DataError
from study.settings import DataSettings

_MEMORY_SHARE = 0.5
"""Decoded images may fill this share of the machine's memory."""


class ParquetImages:
    """The image layout of Hugging Face: ``train-*.parquet`` with columns img or image, and label."""

    augments, flips, has_labels = True, True, True

    def __init__(self, folder: Path, settings: DataSettings) -> None:
        self._folder, self._size = folder, settings.image_size
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
        decoded: list[Tensor | None] = [None] * len(wanted)
        size, start = self._size, 0
        for file in self._files[split]:
            with _opened(file) as parquet:
                column = _column(parquet, ("img", "image"), file)
                for group in range(parquet.num_row_groups):
                    count = parquet.metadata.row_group(group).num_rows
                    rows = [row for row in range(count) if start + row in wanted]
                    if rows:
                        cells = parquet.read_row_group(group, columns=[column]).column(0).combine_chunks()
                        content = cells.field("bytes") if hasattr(cells, "field") else cells
                        for row in rows:
                            image = decode(content[row].as_py(), size, f"{file.name} row {row}")
                            size = size or image.shape[-1]
                            _check_memory(len(wanted), image, "data.train_examples")
                            decoded[wanted[start + row]] = image
                    start += count
        return _stack(decoded, "data.image_size")

    def _read_labels(self, files: list[Path]) -> Tensor:
        parts = []
        for file in files:
            with _opened(file) as parquet:
                column = _column(parquet, ("label", "labels", "fine_label"), file)
                _column(parquet, ("img", "image"), file)
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
        decoded: list[Tensor | None] = []
        size = self._size or self._size_of_first()
        for position in index.tolist():
            file = self._files[split][position]
            image = decode(file.read_bytes(), size, str(file))
            _check_memory(len(index), image, "data.train_examples")
            decoded.append(image)
        return _stack(decoded, "data.image_size")

    def _size_of_first(self) -> int:
        first = self._files["train"][0]
        return min(decode(first.read_bytes(), None, str(first)).shape[-2:])


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


def decode(content: bytes | None, size: int | None, where: str) -> Tensor:
    """Return an encoded image as uint8 of shape (C, H, W), C = 1 for gray and 3 for color.

    With a `size`, the shorter side is scaled to it and the middle is cut out, so that H = W = size.

    Raises:
        DataError: The content is no image.
    """
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content or b"")) as image:
            pixels = image.convert("L" if image.mode in ("1", "L") else "RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(
            "data.name", value=where, rule="must be an image that decodes", remedy=str(error)
        ) from None
    if size is not None and pixels.size != (size, size):
        pixels = ImageOps.fit(pixels, (size, size), Image.Resampling.BILINEAR)
    array = torch.from_numpy(np.array(pixels))
    return array[None] if array.dim() == 2 else array.permute(2, 0, 1)


def _stack(images: list[Any], path: str) -> Tensor:
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        # A single gray image among colored ones is a matter of encoding, not of content.
        images = [image.expand(3, -1, -1) if image.shape[0] == 1 else image for image in images]
        shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise DataError(
            path, value=sorted(shapes)[:3], rule="images must be of one size", remedy="set data.image_size"
        )
    return torch.stack(images)


def _check_memory(count: int, image: Tensor, path: str) -> None:
    needed, available = count * image.numel(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > _MEMORY_SHARE * available:
        fits = int(_MEMORY_SHARE * available / image.numel())
        raise DataError(
            path,
            value=count,
            rule=f"decoded images are kept in memory, and these need {needed / 2**30:.0f} GiB",
            remedy=f"at most {fits} of this size",
        )


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
