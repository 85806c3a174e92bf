"""Images that are decoded when they are asked for, by PyTorch's `DataLoader`: memory does not grow with them.

A batch follows from the positions of its images and the seeds drawn for them, whatever the number of the
loader's workers.

Shapes: N images of a batch, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from study.data.decode import Decoder
from study.errors import DataError

PREFETCHED = 2
"""Batches that each of the loader's workers keeps ready."""

Wanted = tuple[Tensor, Tensor | None]
"""Positions of the images of a batch, int64 of shape (N,), and the seed of what varies each, or None."""


class Reader(Protocol):
    """Encoded images that can be had one by one, in any process."""

    def __getitem__(self, position: int) -> tuple[bytes, str]:
        """The encoded image at a position, and its file and row, for messages."""
        ...


class LazyImages:
    """A split of images that are decoded when they are asked for.

    Args:
        reader: All encoded images of a source's split.
        index_N: The positions there that belong to this split.
        labels_N: Their labels.
        decoder: What turns them into pixels.
        workers: Processes that decode; with 0, this one does.
    """

    def __init__(
        self, reader: Reader, *, index_N: Tensor, labels_N: Tensor, decoder: Decoder, workers: int
    ) -> None:
        self.labels_N, self.decoder = labels_N, decoder
        self._decoded = _Decoded(reader, index_N, decoder)
        self._workers = workers

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.decoder.channels, self.decoder.size, self.decoder.size

    def __getitem__(self, index_N: Tensor) -> Tensor:
        """Images as uint8 of shape (N, C, H, W), decoded in this process."""
        return _whole(self._decoded[index_N, None])

    def read(self, wanted: Iterable[Wanted]) -> Iterator[Tensor]:
        """Yield the images of each batch, uint8 of shape (N, C, H, W), some batches ahead in other processes.

        Raises:
            DataError: An image cannot be decoded; it is named.
        """
        loader: DataLoader = DataLoader(
            self._decoded,
            batch_size=None,
            sampler=wanted,
            num_workers=self._workers,
            prefetch_factor=PREFETCHED if self._workers else None,
            # Else it would draw from the global generator, which dropout draws from too.
            generator=torch.Generator(),
        )
        for batch in loader:
            yield _whole(batch)

    def to(self, device: torch.device) -> LazyImages:
        """The same images: each batch is moved when it is decoded."""
        return self


class _Decoded(Dataset):
    """A batch of decoded images for each `Wanted`, or the error in its place, for its reader to raise."""

    def __init__(self, reader: Reader, index_N: Tensor, decoder: Decoder) -> None:
        self._reader, self._index_N, self._decoder = reader, index_N, decoder

    def __getitem__(self, wanted: Wanted) -> Tensor | DataError:
        positions_N, seeds_N = wanted
        seeds = [None] * len(positions_N) if seeds_N is None else seeds_N.tolist()
        images_NCHW = torch.empty(
            len(positions_N),
            self._decoder.channels,
            self._decoder.size,
            self._decoder.size,
            dtype=torch.uint8,
        )
        try:
            for place, (position, seed) in enumerate(
                zip(self._index_N[positions_N].tolist(), seeds, strict=True)
            ):
                images_NCHW[place] = self._decoder(*self._reader[position], seed)
        except DataError as error:
            return error
        return images_NCHW


def _whole(batch: Tensor | DataError) -> Tensor:
    if isinstance(batch, DataError):
        raise batch
    return batch
