"""The batches of an epoch, which follow from the trial's seed and the epoch alone.

Shapes: N images of a batch, C channels, H rows, W columns. With several workers N is this worker's share.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from study.data.augment import augment, draw
from study.data.load import Split
from study.settings import TrainSettings
from study.train.session import Session


def training_batches(session: Session, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield this worker's share of every batch of an epoch: normalized, augmented inputs, and targets.

    Order and augmentation follow from the trial's seed and the epoch alone, so a resumed trial meets the same
    batches, and workers share one global batch whatever their number.
    """
    data, place, count = session.data, session.place, session.batch_size
    generator = torch.Generator().manual_seed(session.settings.seed * 1_000_003 + epoch)
    order_N = torch.randperm(len(data.train), generator=generator)
    share = slice(place.rank * count // place.world_size, (place.rank + 1) * count // place.world_size)
    for step in range(session.steps_per_epoch):
        index_N = order_N[step * count : (step + 1) * count]
        draws = draw(data.augmentation, count, generator) if data.augmentation else None
        inputs_NCHW, targets_N = batch(session, data.train, index_N[share])
        if data.augmentation and draws:
            inputs_NCHW = augment(inputs_NCHW, data.augmentation, draws[share])
            inputs_NCHW = laid_out(inputs_NCHW, session.settings.train)
        yield inputs_NCHW, targets_N


def batch(session: Session, split: Split, index_N: Tensor) -> tuple[Tensor, Tensor]:
    """Normalized inputs (N, C, H, W) and targets (N,) on the session's device."""
    images = split.images_NCHW[index_N].to(session.device)
    inputs = laid_out(session.data.normalize(images, session.dtype), session.settings.train)
    return inputs, split.labels_N[index_N].to(session.device)


def laid_out(inputs_NCHW: Tensor, train: TrainSettings) -> Tensor:
    """The inputs in the memory format that the settings ask for."""
    return inputs_NCHW.contiguous(
        memory_format=torch.channels_last if train.channels_last else torch.contiguous_format
    )
