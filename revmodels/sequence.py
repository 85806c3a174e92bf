"""A sequence of reversible units and the memory strategy it is trained with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from revmodels.compiled import network as compiled
from revmodels.coupling.block import Pair, ReversibleBlock, StageEntry, split
from revmodels.coupling.grid import Extent, Range, one_grid, to_grid
from revmodels.engine import eager as engine
from revmodels.engine.recomputed_input import Origin
from revmodels.engine.replayed_state import ScratchStatistics, batch_norms
from revmodels.errors import BudgetError, StrategyError, one_of
from revmodels.precision import Precision

if TYPE_CHECKING:
    from revmodels.strategies.budget import MemoryPlan

STRATEGIES = ("store", "reverse", "checkpoint")
BUDGET = "budget"
"""The strategy that chooses one of the others for each unit, see `revmodels.strategies.budget`."""


def check_strategy(strategy: str, allowed: Iterable[str] = STRATEGIES) -> str:
    """Return `strategy` if it is one of `allowed`.

    Raises:
        StrategyError: it is not.
    """
    if strategy not in tuple(allowed):
        raise StrategyError(f"strategy: {one_of(strategy, allowed)}")
    return strategy


def _check_anchors(strategy: str | None, every: int | None) -> None:
    if every is None:
        return
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise StrategyError(
            f"anchor_every: a whole number of units of at least 1, or None; received {every!r}."
        )
    if strategy == BUDGET:
        raise StrategyError(
            f"anchor_every: strategy='budget' chooses by itself which units are stored; received {every} "
            "beside it. Leave anchor_every out, or use strategy='reverse'."
        )


def checkpointed(fn: Callable[..., Any], *inputs: Tensor, modules: Iterable[nn.Module]) -> Any:
    """Call `fn` under `torch.utils.checkpoint`: its inputs are stored, the rest is recomputed.

    Running statistics of the batch norms in `modules` move once, in the forward pass; plain checkpointing
    moves them twice.
    """
    if torch.compiler.is_dynamo_compiling():
        # A graph writes to running statistics once, whatever it recomputes.
        return checkpoint(fn, *inputs, use_reentrant=False)
    layers = batch_norms(modules)

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), ScratchStatistics(layers)

    return checkpoint(fn, *inputs, use_reentrant=False, context_fn=contexts)


class ReversibleSequence(nn.Module):
    """Reversible units in a row, with activation memory that does not grow with their number.

    Args:
        blocks: `ReversibleBlock` units, first to last.
        strategy: ``reverse`` rebuilds activations in the backward pass; ``store`` keeps them, as ordinary
            backpropagation does (the naive twin); ``checkpoint`` keeps each unit's input; ``budget`` chooses
            for each unit so that activations fit `memory_budget_bytes`, at the least recomputation. The
            weights, the state dict and, but for rounding, the gradients are the same; it may be changed at
            any time.
        split_dim: dimension along which a single input tensor is halved.
        memory_budget_bytes: for ``budget``: peak of the sequence's activations and temporaries in a step;
            None is that of ``reverse``, within which the last units can often be stored.
        anchor_every: with ``reverse``, every so-many-th unit behind the first or behind a stage entry keeps
            its input too, so that rounding errors grow over that many units and not over all; None for no
            more anchors than the stage entries. Each costs the memory of one pair.

    Call it with one tensor or with the two streams; it returns what it was given. Shapes are kept, unless a
    `StageEntry` changes them.

    Raises:
        StrategyError: unknown strategy, or `anchor_every` is no whole number of at least 1, or is asked for
            beside a budget.
        SplitError: a single input cannot be halved.
        PrecisionError: only some of the units have an exact coupling.
        RangeError: after a forward pass, if an exact coupling left the range of its grid.
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
        anchor_every: int | None = None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        for unit in self.units():
            unit.is_enclosed = True
        self._anchor_every: int | None = None
        self.strategy = strategy
        self.anchor_every = anchor_every
        self._extent: Extent | None = None
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
        check_strategy(value, (*STRATEGIES, BUDGET))
        _check_anchors(value, self._anchor_every)
        self._strategy = value

    @property
    def anchor_every(self) -> int | None:
        """Distance of the units that keep their input although they could be inverted; None without any."""
        return self._anchor_every

    @anchor_every.setter
    def anchor_every(self, value: int | None) -> None:
        _check_anchors(self.strategy, value)
        self._anchor_every = value
        since = 0
        for unit in self.units():
            since = 0 if isinstance(unit, StageEntry) else since
            unit.is_anchor = value is not None and since > 0 and since % value == 0
            since += 1

    @property
    def range(self) -> Range | None:
        """How far the streams of an exact coupling went in the last forward pass; reads from the device.

        None before the first, and with additive coupling.
        """
        return None if self._extent is None else self._extent.read()

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
            from revmodels.strategies.budget import plan_memory

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
    def forward(self, x1: Tensor, x2: Tensor, *, origin: Origin | None = None) -> Pair: ...
    def forward(self, x1: Tensor, x2: Tensor | None = None, *, origin: Origin | None = None) -> Tensor | Pair:
        """Apply the units in turn.

        Args:
            x1: both streams in one tensor, or the first.
            x2: the second.
            origin: makes the two streams again, in place of storing them for a stage entry that comes first.
        """
        if x2 is None:
            return torch.cat(self.forward(*split(x1, self.split_dim)), self.split_dim)
        bits = one_grid(unit.grid(x1.dtype) for unit in self.units())
        if bits is None:
            self._extent = None
            return self._run(x1, x2, None, origin)
        return self._run_on_grid(x1, x2, bits, origin)

    @torch.compiler.disable(
        reason="exact coupling needs one kernel in forward pass and replay; run it uncompiled"
    )
    def _run_on_grid(self, x1: Tensor, x2: Tensor, bits: int, origin: Origin | None) -> Pair:
        extent = Extent(bits, x1.dtype)
        # A stage entry's input is stored and not rebuilt, and its shortcuts lead to the grid.
        if not isinstance(self.blocks[0], StageEntry):
            x1, x2 = to_grid(x1, bits), to_grid(x2, bits)
            extent.see(-1, x1, x2)
        x1, x2 = self._run(x1, x2, extent, origin)
        extent.close()
        self._extent = extent
        if self._raises_on_overflow():
            extent.check()
        return x1, x2

    def _run(self, x1: Tensor, x2: Tensor, extent: Extent | None, origin: Origin | None) -> Pair:
        if not torch.is_grad_enabled() or self.strategy in ("store", "checkpoint"):
            recompute = torch.is_grad_enabled() and self.strategy == "checkpoint"
            for index, unit in enumerate(self.units()):
                x1, x2 = checkpointed(unit, x1, x2, modules=(unit,)) if recompute else unit(x1, x2)
                if extent is not None:
                    extent.see(index, x1, x2)
        else:
            if not self.owner_plans:
                self.plan_for(self, torch.cat((x1, x2), self.split_dim) if self.strategy == BUDGET else x1)
            x1, x2 = self._run_by_modes(x1, x2, extent, origin)
        return x1, x2

    def _raises_on_overflow(self) -> bool:
        policies = (unit.precision for unit in self.units())
        return any(p is None or p.on_overflow == "raise" for p in policies)

    def _run_by_modes(self, x1: Tensor, x2: Tensor, extent: Extent | None, origin: Origin | None) -> Pair:
        units = enumerate(zip(self.units(), self.modes, strict=True))
        for stored, group in groupby(units, key=lambda item: item[1][1] == "store"):
            members = [(index, unit, mode == "checkpoint") for index, (unit, mode) in group]
            if stored:
                for index, unit, _ in members:
                    x1, x2 = unit(x1, x2)
                    if extent is not None:
                        extent.see(index, x1, x2)
            elif torch.compiler.is_dynamo_compiling() and self.observer is None:
                x1, x2 = compiled.run(self.blocks, [index for index, _, _ in members], x1, x2)
            else:
                first = members[0][0]
                x1, x2 = engine.run(
                    [unit for _, unit, _ in members],
                    x1,
                    x2,
                    self.observer,
                    keeps=[keeps for _, _, keeps in members],
                    first=first,
                    extent=extent,
                    origin=None if first else origin,
                )
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
        if (bits := one_grid(unit.grid(y1.dtype) for unit in self.units())) is not None:
            y1, y2 = to_grid(y1, bits), to_grid(y2, bits)
        for unit in reversed(list(self.units())):
            y1, y2 = unit.inverse(y1, y2)
        return y1, y2
