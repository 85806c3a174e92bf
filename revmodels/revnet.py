"""Reversible residual networks (Gomez, Ren, Urtasun, Grosse, NIPS 2017, section 3)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from revmodels.coupling import ReversibleBlock, StageEntry, split
from revmodels.network import ResidualNetwork
from revmodels.precision import Precision
from revmodels.sequence import STRATEGIES, ReversibleSequence, checkpointed
from revmodels.units import UnitOptions, entry_shortcut, residual_function


class RevNet(ResidualNetwork):
    """A RevNet: the stem's channels are split once, and the two streams meet again before the head.

    As in the paper's code, the first unit of every stage keeps its input; all other units are inverted.
    """

    strategies = STRATEGIES
    body: ReversibleSequence

    def make_body(self, channels: tuple[int, ...], options: UnitOptions) -> ReversibleSequence:
        """Units of all stages in one reversible sequence."""
        units: list[ReversibleBlock] = []
        halves = [c // 2 for c in channels]
        stages = zip(pairwise(halves), self.architecture.units, self.architecture.strides, strict=True)
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
        return ReversibleSequence(units)

    def apply_precision(self, precision: Precision) -> None:
        """Hand the policy to the units."""
        self.body.set_precision(precision)

    @property
    def strategy(self) -> str:
        """``reverse``, ``store`` or ``checkpoint``."""
        return self.body.strategy

    @strategy.setter
    def strategy(self, value: str) -> None:
        self.body.strategy = value

    def start(self, images: Tensor) -> Tensor:
        """Apply the stem. When reversing, it keeps only the images and is run again in the backward pass."""
        if self.strategy == "reverse" and torch.is_grad_enabled():
            return checkpointed(super().start, images, modules=(self.stem,))
        return super().start(images)

    def transform(self, stream: Tensor) -> Tensor:
        """Split the channels into the two streams, apply the units, join."""
        return torch.cat(self.body(*split(stream)), dim=1)
