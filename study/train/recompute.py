"""Recursive checkpointing: the strategy between storing and reversing that needs no inverse.

Chen, Xu, Zhang and Guestrin, "Training Deep Nets with Sublinear Memory Cost" (2016), section 4.3. A row of
units is cut in two. The first half is a checkpoint: it keeps its input, and is run again in the backward
pass by the same rule. The second half goes on by the rule at once: the backward pass needs it first.
For L units that keeps O(log L) inputs and runs O(L log L) units again; reversing keeps O(1) and runs L again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from revmodels import ReversibleSequence
from revmodels.coupling.block import Pair, ReversibleBlock
from revmodels.strategies.checkpoint import checkpointed

RECURSIVE = "recursive"
"""The name of the strategy in study files."""


class RecursiveSequence(ReversibleSequence):
    """Units that are checkpointed recursively. Weights and gradients are those of the stored sequence."""

    def forward(self, x1: Tensor, x2: Tensor | None = None) -> Tensor | Pair:  # type: ignore[override]
        """Apply the units in turn, to the two streams or to one tensor that is split."""
        if x2 is None or not torch.is_grad_enabled():
            return super().forward(x1, x2)
        return _run(list(self.units()), x1, x2)


def recursive(model: nn.Module) -> nn.Module:
    """Make a RevNet that stores its activations checkpoint its units recursively instead."""
    body = model.body
    assert isinstance(body, ReversibleSequence)
    model.body = RecursiveSequence(body.units(), strategy="store")
    return model


def _run(units: Sequence[ReversibleBlock], x1: Tensor, x2: Tensor) -> Pair:
    if len(units) > 1:
        half = len(units) // 2
        first, units = units[:half], units[half:]

        def again(x1: Tensor, x2: Tensor) -> Pair:
            return _run(first, x1, x2)

        x1, x2 = checkpointed(again, x1, x2, modules=first)
        return _run(units, x1, x2)
    return units[0](x1, x2)
