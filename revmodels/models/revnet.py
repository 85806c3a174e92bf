"""Reversible residual networks (Gomez, Ren, Urtasun, Grosse, NIPS 2017, section 3)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from revmodels.coupling.block import ReversibleBlock, StageEntry, split
from revmodels.engine.recomputed_input import Origin
from revmodels.errors import BudgetError
from revmodels.models.base import ResidualNetwork
from revmodels.models.layers import UnitOptions, entry_shortcut, residual_function
from revmodels.precision import Precision
from revmodels.sequence import BUDGET, STRATEGIES, ReversibleSequence, checkpointed

if TYPE_CHECKING:
    from revmodels.strategies.budget import MemoryPlan


class RevNet(ResidualNetwork):
    """A RevNet: the stem's channels are split once, and the two streams meet again before the head.

    As in the paper's code, the first unit of every stage keeps its input; all other units are inverted.
    """

    strategies = (*STRATEGIES, BUDGET)
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
        body = ReversibleSequence(units)
        body.owner_plans = True
        return body

    def apply_precision(self, precision: Precision) -> None:
        """Hand the policy to the units."""
        self.body.set_precision(precision)

    def memory_plan(self) -> MemoryPlan:
        """What strategy ``budget`` has decided for the largest batch so far; it prints as two lines.

        Raises:
            BudgetError: nothing has been planned yet.
        """
        if self.body.plan is None:
            raise BudgetError(
                "strategy='budget' chooses when it has seen the shape of a batch. Run a training step first."
            )
        return self.body.plan

    @property
    def memory_budget_bytes(self) -> int | None:
        """For strategy ``budget``: peak of activations and temporaries of a training step, in bytes.

        None is the peak of ``reverse``, within which the last units can often be stored.
        """
        return self.body.memory_budget_bytes

    @memory_budget_bytes.setter
    def memory_budget_bytes(self, value: int | None) -> None:
        self.body.memory_budget_bytes = value
        self.body.forget_plan()

    @property
    def anchor_every(self) -> int | None:
        """Distance within a stage of the units that keep their input, see `ReversibleSequence`."""
        return self.body.anchor_every

    @anchor_every.setter
    def anchor_every(self, value: int | None) -> None:
        self.body.anchor_every = value

    @property
    def strategy(self) -> str:
        """``reverse``, ``store``, ``checkpoint`` or ``budget``."""
        return self.body.strategy

    @strategy.setter
    def strategy(self, value: str) -> None:
        self.body.strategy = value

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
            return checkpointed(super().start, images, modules=(self.stem,))
        return super().start(images)

    def transform(self, stream: Tensor) -> Tensor:
        """Split the channels into the two streams, apply the units, join."""
        return torch.cat(self.body(*split(stream)), dim=1)

    def _recomputes(self, images: Tensor) -> bool:
        """Whether the stem is run again in the backward pass."""
        if not torch.is_grad_enabled() or self.strategy not in ("reverse", BUDGET):
            return False
        self.body.plan_for(self, images)
        return any(mode != "store" for mode in self.body.modes)
