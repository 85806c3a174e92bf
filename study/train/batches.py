"""The batches of a training, which follow from the trial's seed and the number of the step alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from study.tasks.task import Batch
from study.train.session import Session


def training_batches(session: Session, first: int, last: int) -> Iterator[Batch]:
    """This worker's share of the batch of each step from `first` to `last`, the latter not included.

    An epoch is passed in an order of its own, and what augmentation draws comes from the same generator. So a
    resumed trial meets the same batches, and workers share one global batch whatever their number.

    Args:
        session: The trial's data, seed and place among the workers.
        first: The first step, counted from 0 over the whole training.
        last: The step after the last one.

    Returns:
        One batch a step.
    """
    return session.examples.training(_plan(session, first, last))


def _plan(session: Session, first: int, last: int) -> Iterator[tuple[Tensor, Any]]:
    """Yield the positions of each batch, and what is drawn for them."""
    examples, place, count = session.examples, session.place, session.batch_size
    share = slice(place.rank * count // place.world_size, (place.rank + 1) * count // place.world_size)
    step = first
    while step < last:
        epoch, done = divmod(step, session.steps_per_epoch)
        # Epochs are counted from 1 in seeds, as in rows.
        generator = torch.Generator().manual_seed(session.settings.seed * 1_000_003 + epoch + 1)
        order_N = torch.randperm(len(examples.train), generator=generator)
        for _ in range(done):
            examples.draw(count, generator)
        for within in range(done, min(session.steps_per_epoch, done + last - step)):
            index_N = order_N[within * count : (within + 1) * count]
            draws = examples.draw(count, generator)
            yield index_N[share], None if draws is None else draws[share]
            step += 1
