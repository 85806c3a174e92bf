"""A sequence of reversible units and the memory strategy it is trained with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from revmodels import engine
from revmodels.coupling import Pair, ReversibleBlock, split
from revmodels.errors import StrategyError, one_of
from revmodels.precision import Precision
from revmodels.replay import batch_norms, scratch_statistics

STRATEGIES = ("store", "reverse", "checkpoint")


def check_strategy(strategy: str, allowed: Iterable[str] = STRATEGIES) -> str:
    """Return `strategy` if it is one of `allowed`.

    Raises:
        StrategyError: it is not.
    """
    if strategy not in tuple(allowed):
        raise StrategyError(f"strategy: {one_of(strategy, allowed)}")
    return strategy


def checkpointed(fn: Callable[..., Any], *inputs: Tensor, modules: Iterable[nn.Module]) -> Any:
    """Call `fn` under `torch.utils.checkpoint`: its inputs are stored, the rest is recomputed.

    Running statistics of the batch norms in `modules` move once, in the forward pass; plain checkpointing
    moves them twice.
    """
    layers = batch_norms(modules)

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), scratch_statistics(layers)

    return checkpoint(fn, *inputs, use_reentrant=False, context_fn=contexts)


class ReversibleSequence(nn.Module):
    """Reversible units in a row, with activation memory that does not grow with their number.

    Args:
        blocks: `ReversibleBlock` units, first to last.
        strategy: ``reverse`` rebuilds activations in the backward pass; ``store`` keeps them, as ordinary
            backpropagation does (the naive twin); ``checkpoint`` keeps each unit's input. The weights, the
            state dict and, but for rounding, the gradients are the same; it may be changed at any time.
        split_dim: dimension along which a single input tensor is halved.

    Call it with one tensor or with the two streams; it returns what it was given. Shapes are kept, unless a
    `StageEntry` changes them.

    Raises:
        StrategyError: unknown strategy.
        SplitError: a single input cannot be halved.

    Example:
        >>> net = ReversibleSequence([ReversibleBlock(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(3)])
        >>> net(torch.randn(2, 8)).shape
        torch.Size([2, 8])
    """

    def __init__(
        self, blocks: Iterable[ReversibleBlock], strategy: str = "reverse", *, split_dim: int = 1
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.strategy = strategy
        self.split_dim = split_dim
        self.observer: engine.Observer | None = None

    @property
    def strategy(self) -> str:
        """How activations are had in the backward pass: ``store``, ``reverse`` or ``checkpoint``."""
        return self._strategy

    @strategy.setter
    def strategy(self, value: str) -> None:
        self._strategy = check_strategy(value)

    def set_precision(self, precision: Precision | None) -> None:
        """Give every unit the same precision policy; None leaves F and G to the caller's autocast."""
        for unit in self.units():
            unit.precision = precision

    def units(self) -> Iterator[ReversibleBlock]:
        """The units, first to last."""
        for unit in self.blocks:
            assert isinstance(unit, ReversibleBlock)
            yield unit

    @overload
    def forward(self, x1: Tensor, x2: None = None) -> Tensor: ...
    @overload
    def forward(self, x1: Tensor, x2: Tensor) -> Pair: ...
    def forward(self, x1: Tensor, x2: Tensor | None = None) -> Tensor | Pair:
        """Apply the units in turn."""
        if x2 is None:
            return torch.cat(self.forward(*split(x1, self.split_dim)), self.split_dim)
        if self.strategy == "reverse" and torch.is_grad_enabled():
            return engine.run(list(self.units()), x1, x2, self.observer)
        recompute = self.strategy == "checkpoint" and torch.is_grad_enabled()
        for unit in self.units():
            x1, x2 = checkpointed(unit, x1, x2, modules=(unit,)) if recompute else unit(x1, x2)
        return x1, x2

    @overload
    def inverse(self, y1: Tensor, y2: None = None) -> Tensor: ...
    @overload
    def inverse(self, y1: Tensor, y2: Tensor) -> Pair: ...
    def inverse(self, y1: Tensor, y2: Tensor | None = None) -> Tensor | Pair:
        """Rebuild the input from the output, unit by unit, last to first.

        Raises:
            ResidualError: one of the units is a stage entry, which has no inverse.
        """
        if y2 is None:
            return torch.cat(self.inverse(*split(y1, self.split_dim)), self.split_dim)
        for unit in reversed(list(self.units())):
            y1, y2 = unit.inverse(y1, y2)
        return y1, y2
