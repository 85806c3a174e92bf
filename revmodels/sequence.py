"""A sequence of reversible units and the memory strategy it is trained with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from revmodels import engine
from revmodels.coupling import Pair, ReversibleBlock, split
from revmodels.errors import BudgetError, StrategyError, one_of
from revmodels.precision import Precision
from revmodels.replay import batch_norms, scratch_statistics

if TYPE_CHECKING:
    from revmodels.budget import MemoryPlan

STRATEGIES = ("store", "reverse", "checkpoint")
BUDGET = "budget"
"""The strategy that chooses one of the others for each unit, see `revmodels.budget`."""


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
            backpropagation does (the naive twin); ``checkpoint`` keeps each unit's input; ``budget`` chooses
            for each unit so that activations fit `memory_budget_bytes`. The weights, the state dict and, but
            for rounding, the gradients are the same; it may be changed at any time.
        split_dim: dimension along which a single input tensor is halved.
        memory_budget_bytes: for ``budget``: peak of the sequence's activations and temporaries in a step.

    Call it with one tensor or with the two streams; it returns what it was given. Shapes are kept, unless a
    `StageEntry` changes them.

    Raises:
        StrategyError: unknown strategy.
        SplitError: a single input cannot be halved.
        BudgetError: in the first forward pass, if no choice of strategies meets the budget.

    Example:
        >>> net = ReversibleSequence([ReversibleBlock(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(3)])
        >>> net(torch.randn(2, 8)).shape
        torch.Size([2, 8])
    """

    def __init__(
        self,
        blocks: Iterable[ReversibleBlock],
        strategy: str = "reverse",
        *,
        split_dim: int = 1,
        memory_budget_bytes: int | None = None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.strategy = strategy
        self.split_dim = split_dim
        self.memory_budget_bytes = memory_budget_bytes
        self._planned: tuple[str, ...] | None = None
        self._planned_numel = 0
        self.plan: MemoryPlan | None = None
        self.owner_plans = False
        self.observer: engine.Observer | None = None

    @property
    def strategy(self) -> str:
        """How activations are had in the backward pass."""
        return self._strategy

    @strategy.setter
    def strategy(self, value: str) -> None:
        self._strategy = check_strategy(value, (*STRATEGIES, BUDGET))

    @property
    def modes(self) -> tuple[str, ...]:
        """What happens to each unit's activations: ``store``, ``reverse`` or ``checkpoint``.

        Raises:
            BudgetError: the strategy is ``budget`` and nothing has been planned yet.
        """
        if self.strategy == BUDGET:
            if self._planned is None:
                raise BudgetError(
                    "strategy='budget' chooses when it has seen the shape of a batch. Run a training step "
                    "first, or revmodels.budget.plan_memory(model, inputs)."
                )
            return self._planned
        kept = "checkpoint" if self.strategy == "reverse" else self.strategy
        return tuple(kept if unit.stores_input else self.strategy for unit in self.units())

    def adopt(self, modes: tuple[str, ...], *, numel: int) -> None:
        """Put planned modes into effect, for inputs of up to `numel` numbers."""
        self._planned, self._planned_numel = modes, numel

    def forget_plan(self) -> None:
        """Plan anew in the next training step, as after a change of the budget."""
        self._planned, self._planned_numel, self.plan = None, 0, None

    def plan_for(self, model: nn.Module, inputs: Tensor) -> None:
        """With strategy ``budget``, plan `model` unless a plan for inputs this large is in force.

        Args:
            model: this sequence, or the network around it, whose other activations count as well. Such a
                network sets `owner_plans`.
            inputs: what `model` is called with.
        """
        if self.strategy == BUDGET and (self._planned is None or inputs.numel() > self._planned_numel):
            from revmodels.budget import plan_memory

            plan_memory(model, inputs)

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
        if not torch.is_grad_enabled() or self.strategy == "store":
            for unit in self.units():
                x1, x2 = unit(x1, x2)
        elif self.strategy == "checkpoint":
            for unit in self.units():
                x1, x2 = checkpointed(unit, x1, x2, modules=(unit,))
        else:
            if not self.owner_plans:
                self.plan_for(self, torch.cat((x1, x2), self.split_dim) if self.strategy == BUDGET else x1)
            x1, x2 = self._run_by_modes(x1, x2)
        return x1, x2

    def _run_by_modes(self, x1: Tensor, x2: Tensor) -> Pair:
        units = enumerate(zip(self.units(), self.modes, strict=True))
        for stored, group in groupby(units, key=lambda item: item[1][1] == "store"):
            members = [(index, unit) for index, (unit, _) in group]
            if stored:
                for _, unit in members:
                    x1, x2 = unit(x1, x2)
            else:
                first = members[0][0]
                x1, x2 = engine.run([unit for _, unit in members], x1, x2, self.observer, first=first)
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
