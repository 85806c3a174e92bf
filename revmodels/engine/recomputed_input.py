"""What a network's streams were made from, so that their first unit need not store them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from revmodels.coupling.block import split
from revmodels.coupling.context import Pair
from revmodels.engine.replayed_state import RandomState
from revmodels.errors import ReplayError
from revmodels.running_statistics import batch_norms, frozen_statistics
from revmodels.torch_internals import version


class Origin:
    """Makes the two streams that enter a sequence a second time, in the backward pass.

    Make it before the first time: it notes the state of the random generators.

    Args:
        stem: the module between `images` and the streams.
        start: evaluates it, to one tensor that holds both streams side by side.
        images: its input, (batch, channels, height, width).
    """

    def __init__(self, stem: nn.Module, start: Callable[[Tensor], Tensor], images: Tensor) -> None:
        self._stem = stem
        self._start = start
        self._images = images
        self._random = RandomState.current(images)
        self._versions = self._read_versions()

    def pair(self) -> Pair:
        """The streams, with the random numbers of the forward pass and running statistics left alone.

        Raises:
            ReplayError: the images or the stem's parameters are not those of the forward pass any more.
        """
        if self._read_versions() != self._versions:
            raise ReplayError(
                "the images, or parameters of the stem, were modified or replaced between forward and "
                "backward; what enters the first unit is computed from them again. Change them before the "
                "forward pass or after the backward, or use strategy='store'."
            )
        with torch.no_grad(), frozen_statistics(batch_norms((self._stem,))):
            if self._random is None:
                return split(self._start(self._images))
            with self._random.restored():
                return split(self._start(self._images))

    def _read_versions(self) -> list[tuple[int, int]]:
        return [(id(t), version(t)) for t in (self._images, *self._stem.parameters())]
