"""Reversible residual networks (Gomez, Ren, Urtasun, Grosse, NIPS 2017, section 3)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from revmodels.coupling.block import ReversibleBlock, split
from revmodels.coupling.stage_entry import StageEntry
from revmodels.engine.recomputed_input import Origin
from revmodels.models.architecture import Architecture
from revmodels.models.layers import UnitOptions, entry_shortcut, make_head, make_stem, residual_function
from revmodels.models.reversible import ReversibleNetwork
from revmodels.precision import Precision
from revmodels.sequence import ReversibleSequence
from revmodels.strategies.checkpoint import checkpointed


class RevNet(ReversibleNetwork):
    """A RevNet: the stem's channels are split once, and the two streams meet again before the head.

    As in the paper's code, the first unit of every stage keeps its input; all other units are inverted.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        num_classes: int,
        in_channels: int,
        width: float,
        precision: Precision | None,
        options: UnitOptions,
    ) -> None:
        channels = architecture.channels(width)
        super().__init__(
            architecture,
            stem=make_stem(architecture.stem, in_channels, channels[0], options),
            body=ReversibleSequence(_units(architecture, channels, options)),
            head=make_head(channels[-1], num_classes, options),
            num_classes=num_classes,
            width=width,
            precision=precision,
        )

    def features(self, images: Tensor) -> Tensor:
        """What the head classifies. When reversing, only the images are kept of what precedes the units."""
        if not self._recomputes(images):
            return super().features(images)
        origin = None
        if not torch.compiler.is_compiling():
            origin = Origin(self.stem, super().start, images)
        return torch.cat(self.body(*split(self.start(images)), origin=origin), dim=1)

    def start(self, images: Tensor) -> Tensor:
        """Apply the stem. When reversing, it keeps only the images and is run again in the backward pass."""
        if self._recomputes(images):
            return checkpointed(super().start, images, modules=(self.stem,), name="the stem")
        return super().start(images)

    def transform(self, stream: Tensor) -> Tensor:
        """Split the channels into the two streams, apply the units, join."""
        return torch.cat(self.body(*split(stream)), dim=1)

    def _recomputes(self, images: Tensor) -> bool:
        """Whether the stem is run again in the backward pass."""
        if not torch.is_grad_enabled():
            return False
        self.body.plan_for(self, images)
        return self.body.recomputes_stem


def _units(
    architecture: Architecture, channels: tuple[int, ...], options: UnitOptions
) -> list[ReversibleBlock]:
    units: list[ReversibleBlock] = []
    halves = [c // 2 for c in channels]
    stages = zip(pairwise(halves), architecture.units, architecture.strides, strict=True)
    for (c_in, c_out), count, stride in stages:
        units.append(
            StageEntry(
                residual_function(c_in, c_out, stride, options, activated=not units),
                residual_function(c_out, c_out, 1, options),
                entry_shortcut(c_in, c_out, stride, options),
                entry_shortcut(c_in, c_out, stride, options),
            )
        )
        units += [
            ReversibleBlock(
                residual_function(c_out, c_out, 1, options), residual_function(c_out, c_out, 1, options)
            )
            for _ in range(count - 1)
        ]
    return units
