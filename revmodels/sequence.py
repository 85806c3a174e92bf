"""A sequence of reversible units and the memory strategy it is trained with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor, nn

from revmodels.coupling.block import ReversibleBlock, split
from revmodels.coupling.context import NO_CONTEXT, Context, Pair, streams_and_context
from revmodels.coupling.grid import one_grid, to_grid
from revmodels.coupling.linear import Coupling, inverse_error_growth
from revmodels.coupling.range import Extent, Range
from revmodels.coupling.stage_entry import StageEntry
from revmodels.engine.eager import Observer
from revmodels.engine.given import Watch
from revmodels.engine.outer_checkpoint import check_repetition, note_pass
from revmodels.engine.recomputed_input import Origin
from revmodels.errors import StrategyError
from revmodels.precision import Precision
from revmodels.strategies.memory_plan import MemoryPlan, Plans
from revmodels.strategies.registry import find_strategy
from revmodels.strategies.strategy import ForwardPass, applied


def _check_anchors(strategy: str, every: int | None) -> None:
    if every is None:
        return
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise StrategyError(
            f"anchor_every: a whole number of units of at least 1, or None; received {every!r}."
        )
    if find_strategy(strategy).plans:
        raise StrategyError(
            f"anchor_every: strategy={strategy!r} chooses by itself which units are stored; received {every} "
            "beside it. Leave anchor_every out, or use strategy='reverse'."
        )


class ReversibleSequence(nn.Module):
    """Reversible units in a row, with activation memory that does not grow with their number.

    Args:
        blocks: `ReversibleBlock` units, first to last.
        strategy: a name from `revmodels.strategies.registry`. ``reverse`` rebuilds activations in the
            backward pass; ``store`` keeps them, as ordinary backpropagation does (the naive twin);
            ``checkpoint`` keeps each unit's input and ``recursive`` those of O(log L) of L units; ``budget``
            chooses for each unit so that activations fit `memory_budget_bytes`, at the least recomputation.
            The weights, the state dict and, but for rounding, the gradients are the same; it may be changed
            at any time.
        split_dim: dimension along which a single input tensor is halved.
        memory_budget_bytes: for ``budget``: peak of the sequence's activations and temporaries in a step;
            None is that of ``reverse``, within which the last units can often be stored.
        anchor_every: with ``reverse``, every so-many-th unit behind the first or behind a stage entry keeps
            its input too, so that rounding errors grow over that many units and not over all; None for no
            more anchors than the stage entries. Each costs the memory of one pair.

    Call it with one tensor or with a pair of streams; it returns what it was given. Shapes are kept, unless a
    `StageEntry` changes them. What follows is context, ``net(x, *context, **options)``, and is handed to
    every F and G (`revmodels.coupling.context`): attention masks, conditioning, encoder outputs, positions.
    It is held once, however many units there are, and its tensors get the sum of the units' gradients.

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
        self._anchor_every: int | None = None
        self.strategy = strategy
        self.anchor_every = anchor_every
        self._extent: Extent | None = None
        self.split_dim = split_dim
        self.memory_budget_bytes = memory_budget_bytes
        self.plans = Plans()
        self.owner_plans = False
        self.observer: Observer | None = None

    @property
    def strategy(self) -> str:
        """How activations are had in the backward pass: the name of a strategy.

        Raises:
            StrategyError: on assigning a name that is none, or that does not go with `anchor_every`.
        """
        return self._strategy

    @strategy.setter
    def strategy(self, value: str) -> None:
        find_strategy(value)
        _check_anchors(value, self._anchor_every)
        self._strategy = value

    @property
    def anchor_every(self) -> int | None:
        """Distance of the units that keep their input although they could be inverted; None without any.

        Raises:
            StrategyError: on assigning what is no whole number of at least 1, or beside a budget.
        """
        return self._anchor_every

    @anchor_every.setter
    def anchor_every(self, value: int | None) -> None:
        _check_anchors(self.strategy, value)
        self._anchor_every = value

    @property
    def keeps_input(self) -> tuple[bool, ...]:
        """Of each unit, whether its input is kept while others are rebuilt: of stage entries and anchors."""
        every, since, kept = self._anchor_every, 0, []
        for unit in self.units():
            since = since if unit.has_inverse else 0
            is_anchor = every is not None and since > 0 and since % every == 0
            kept.append(is_anchor or not unit.has_inverse)
            since += 1
        return tuple(kept)

    @property
    def inverse_error_growth(self) -> float:
        """Predict how much an error grows in the longest row of units that are rebuilt.

        A row ends at a unit that keeps its input. See
        `revmodels.coupling.linear.Coupling.inverse_error_growth`: a factor, 1 where nothing is rebuilt, and
        infinite beyond the range of floats.
        """
        rows: list[list[Coupling]] = [[]]
        for unit, keeps in zip(self.units(), self.keeps_input, strict=True):
            if keeps:
                rows.append([])
            else:
                rows[-1].append(unit.rule)
        return max(map(inverse_error_growth, rows))

    @property
    def range(self) -> Range | None:
        """How far the streams of an exact coupling went in the last forward pass; reads from the device.

        None before the first, and with additive coupling.
        """
        return None if self._extent is None else self._extent.read()

    @property
    def side_information_bytes(self) -> int:
        """Bytes that the last forward pass kept so that an exact coupling can be inverted bit for bit.

        0 without an exact coupling, where alpha is 1 or -1, and where nothing is to be rebuilt.
        """
        return 0 if self._extent is None else self._extent.side_bytes

    @property
    def modes(self) -> tuple[str, ...]:
        """What happens to each unit's activations: ``store``, ``reverse``, ``checkpoint`` or ``recursive``.

        Raises:
            BudgetError: the strategy is ``budget`` and nothing has been planned yet.
        """
        return find_strategy(self.strategy).modes(self._forward_pass(None, None, NO_CONTEXT))

    @property
    def plan(self) -> MemoryPlan | None:
        """What strategy ``budget`` has decided for the last training step; None before the first."""
        return self.plans.current

    @property
    def recomputes_stem(self) -> bool:
        """Whether a network around this sequence should compute again what precedes it.

        Raises:
            BudgetError: the strategy is ``budget`` and nothing has been planned yet.
        """
        return find_strategy(self.strategy).recomputes_stem(self.modes)

    def plan_for(self, model: nn.Module, *inputs: Any, **options: Any) -> None:
        """Let a strategy that plans choose for these inputs, unless it has.

        Args:
            model: this sequence, or the network around it, whose other activations count as well. Such a
                network sets `owner_plans`.
            inputs: what `model` is called with.
            options: likewise, by name.

        Raises:
            BudgetError: no choice meets the budget.
        """
        find_strategy(self.strategy).plan(model, self, *inputs, **options)

    def set_coupling(self, coupling: str | Coupling) -> None:
        """Give every unit the same coupling. Stage entries, which nobody inverts, stay as they are.

        Args:
            coupling: as for `ReversibleBlock`.

        Raises:
            CouplingError: no such coupling, or it cannot be exact where the units are to be.
        """
        for unit in self.units():
            if not isinstance(unit, StageEntry):
                unit.coupling = coupling

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
    def forward(self, x: Tensor, /, *context: Any, **options: Any) -> Any: ...
    @overload
    def forward(self, x: Pair, /, *context: Any, **options: Any) -> Pair: ...
    def forward(
        self, x: Tensor | Pair, /, *context: Any, origin: Origin | None = None, **options: Any
    ) -> Any:
        """Apply the units in turn.

        Args:
            x: both streams in one tensor, or a pair of them of equal shape and dtype.
            context: handed to every F and G behind its stream. A second stream may stand in front of it where
                F and G do not take as many arguments.
            origin: makes the two streams again, in place of storing them for a stage entry that comes first.
                No option can have this name.
            options: handed to every F and G by name.

        Returns:
            One tensor or two streams, as it was called: of the input's dtype and, but for stage entries,
            shape.

        Raises:
            StrategyError: an option is called `origin`.
        """
        if origin is not None and not isinstance(origin, Origin):
            raise StrategyError(
                "origin: the name is taken by what makes the streams again "
                f"(revmodels.engine.recomputed_input); received {type(origin).__name__}. Give the option "
                "another name."
            )
        first = next(self.units(), None)
        functions = () if first is None else (first.f, first.g)
        streams, context = streams_and_context(x, context, options, functions)
        given = Context(context, options) if context or options else NO_CONTEXT
        if torch.is_grad_enabled() and not self.owner_plans:
            self.plan_for(self, streams, *context, **options)
        if isinstance(streams, Tensor):
            return torch.cat(self._apply_units(*split(streams, self.split_dim), None, given), self.split_dim)
        return self._apply_units(*streams, origin, given)

    def _apply_units(self, x1: Tensor, x2: Tensor, origin: Origin | None, given: Context) -> Pair:
        bits = one_grid(unit.grid(x1.dtype) for unit in self.units())
        if bits is None:
            self._extent = None
            return self._run(x1, x2, None, origin, given)
        # Whether a compiler traces this is asked first: it knows the answer, and need not read `sys.modules`.
        if torch.compiler.is_dynamo_compiling() or "torch._dynamo" in sys.modules:
            from revmodels.engine.outside_graphs import run_on_grid

            return run_on_grid(self._run_on_grid, x1, x2, bits, origin, given)
        return self._run_on_grid(x1, x2, bits, origin, given)

    def _run_on_grid(self, x1: Tensor, x2: Tensor, bits: int, origin: Origin | None, given: Context) -> Pair:
        reach = max((unit.reach for unit in self.units()), default=1.0)
        extent = Extent(bits, x1.dtype, reach=reach)
        # A stage entry's input is stored and not rebuilt, and its shortcuts lead to the grid.
        if next(self.units()).has_inverse:
            x1, x2 = to_grid(x1, bits), to_grid(x2, bits)
            extent.see(-1, x1, x2)
        x1, x2 = self._run(x1, x2, extent, origin, given)
        extent.close()
        self._extent = extent
        if self._raises_on_overflow():
            extent.check()
        return x1, x2

    def _run(
        self, x1: Tensor, x2: Tensor, extent: Extent | None, origin: Origin | None, given: Context
    ) -> Pair:
        if not torch.is_grad_enabled():
            y1, y2 = applied(self._forward_pass(extent, None, given), range(len(self.blocks)), x1, x2)
            return y1, y2
        if torch.compiler.is_dynamo_compiling():
            y1, y2 = find_strategy(self.strategy).run(self._forward_pass(extent, origin, given), x1, x2)
            return y1, y2
        how = self.strategy, self.anchor_every, self.plans.modes, self.plans.layers, tuple(self.blocks)
        check_repetition(self, how)
        y1, y2 = find_strategy(self.strategy).run(self._forward_pass(extent, origin, given), x1, x2)
        note_pass(self, how, y1, y2)
        return y1, y2

    def _forward_pass(self, extent: Extent | None, origin: Origin | None, given: Context) -> ForwardPass:
        return ForwardPass(
            units=self.blocks,
            apply=_couple_on(given) if given else _couple,
            keeps_input=self.keeps_input,
            modes=self.plans.modes,
            layers=self.plans.layers,
            observer=self.observer,
            extent=extent,
            origin=origin,
            context=given,
        )

    def _raises_on_overflow(self) -> bool:
        policies = (unit.precision for unit in self.units())
        return any(p is None or p.on_overflow == "raise" for p in policies)

    @overload
    def inverse(self, y: Tensor, /, *context: Any, **options: Any) -> Any: ...
    @overload
    def inverse(self, y: Pair, /, *context: Any, **options: Any) -> Pair: ...
    def inverse(self, y: Tensor | Pair, /, *context: Any, **options: Any) -> Any:
        """Rebuild the input from the output, unit by unit, last to first.

        Args:
            y: both streams in one tensor, or a pair of them.
            context: as in the call whose input is asked for.
            options: likewise, by name.

        Returns:
            One tensor, or two streams, as it was called, of the output's shape and dtype.

        Raises:
            ResidualError: one of the units is a stage entry, which has no inverse.
        """
        units = list(self.units())
        functions = (units[0].f, units[0].g) if units else ()
        streams, context = streams_and_context(y, context, options, functions)
        if isinstance(streams, Tensor):
            return torch.cat(
                self.inverse(split(streams, self.split_dim), *context, **options), self.split_dim
            )
        for unit in reversed(units):
            streams = unit.inverse(streams, *context, **options)
        return streams


def _couple(unit: ReversibleBlock, x1: Tensor, x2: Tensor) -> Pair:
    """Call a unit as a module, so that its hooks run, without the rounding and watching it does alone."""
    return unit(x1, x2, _step=unit.couple)


def _couple_on(given: Context) -> Callable[[ReversibleBlock, Tensor, Tensor], Pair]:
    """The same with a context; a backward pass that calls it again refuses a context with other numbers."""
    watch = None if torch.compiler.is_dynamo_compiling() else Watch(given.args, given.options)
    return partial(_couple_watched, given, watch)


def _couple_watched(
    given: Context, watch: Watch | None, unit: ReversibleBlock, x1: Tensor, x2: Tensor
) -> Pair:
    if watch is not None:
        watch.check_repetition("a reversible unit")
    return unit(x1, x2, *given.args, _step=unit.couple, **given.options)
