"""The reversible engine: backpropagation through coupled units without their activations.

Each unit is one `autograd.Function`. Its forward saves nothing; only the last unit of a run saves the pair it
returns, and a unit that keeps its input saves the pair it receives. In the backward pass the units hand the
rebuilt pair to one another through a `Tape`, last to first (Gomez et al. 2017, algorithm 1), in one extra
evaluation of F and G each: the value of G(y1) under grad rebuilds x2, and the graph of the same call is then
differentiated.

Parameters are inputs of the Function and their gradients are returned. So they arrive block by block, and
everything that watches the autograd graph (`torch.autograd.grad`, hooks, DDP) sees an ordinary one.

The naive twin is `revmodels.coupling`: the same units called as plain modules.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.graph import GradientEdge, _engine_run_backward, get_gradient_edge

from revmodels.coupling import Pair, ReversibleBlock, StageEntry, combine, separate
from revmodels.errors import DoubleBackwardError, ReplayError
from revmodels.grid import Extent
from revmodels.origin import Origin
from revmodels.replay import Autocast, RandomState, frozen_statistics, survey
from revmodels.valueless import without_value

Function = Callable[[Tensor], Tensor]
Observer = Callable[[int, Tensor, Tensor], None]
"""Called in the backward pass with a unit's position and its input pair, as rebuilt or as stored."""


class Tape:
    """What the units of one forward call share until its backward pass.

    Attributes:
        autocast: the autocast state of the forward pass.
        pair: the output pair of the unit whose backward comes next.
        owned: whether that pair was rebuilt here, so that nobody else reads it and it may be overwritten.
        passed: what the last unit returned in the forward pass, to see that the next one receives it.
        origin: makes the first unit's input again.
    """

    def __init__(self, x: Tensor, observer: Observer | None, first: int, origin: Origin | None) -> None:
        self.autocast = Autocast.current(x.device.type)
        self.origin = origin
        self.observer = observer
        self.first = first
        self.pair: Pair | None = None
        self.owned = False
        self.passed: tuple[_Identity, _Identity] | None = None

    def put(self, index: int, x1: Tensor, x2: Tensor, *, owned: bool) -> None:
        """Leave the pair for the preceding unit."""
        if self.observer is not None:
            self.observer(self.first + index, x1, x2)
        if index > 0:
            self.pair, self.owned = (x1, x2), owned

    def take(self) -> tuple[Tensor, Tensor, bool]:
        """Take the pair that the following unit has left."""
        if self.pair is None:
            raise ReplayError(
                "a unit inside a reversible sequence was differentiated without the units after it. Take "
                "gradients from the sequence's output, or use strategy='store'."
            )
        (y1, y2), self.pair = self.pair, None
        return y1, y2, self.owned


def run(
    units: Sequence[ReversibleBlock],
    x1: Tensor,
    x2: Tensor,
    observer: Observer | None = None,
    *,
    keeps: Sequence[bool],
    first: int = 0,
    extent: Extent | None = None,
    origin: Origin | None = None,
) -> Pair:
    """Apply `units` in turn, rebuilding activations in the backward pass.

    Args:
        units: blocks and stage entries, first to last.
        x1: first stream, of any shape that F and G keep.
        x2: second stream.
        observer: sees every input pair in the backward pass.
        keeps: whether each unit keeps its input instead of rebuilding it.
        first: position of the first unit in the network, as told to the observer.
        extent: sees every output pair in the forward pass.
        origin: makes `x1` and `x2` again, so that a first unit that would store them stores nothing.

    Raises:
        ReplayError: in the backward pass, if a parameter was replaced or modified since the forward pass.
        ResidualError: F or G changed the shape of its input.
    """
    tape = Tape(x1, observer, first, origin)
    for index, (unit, keep) in enumerate(zip(units, keeps, strict=True)):
        # As a module: hooks run, and what is sharded is gathered before the parameters are looked at.
        x1, x2 = unit(x1, x2, step=partial(_step, unit, keep, tape, index, index == len(units) - 1))
        if extent is not None:
            extent.see(first + index, x1, x2)
    return x1, x2


def _step(
    unit: ReversibleBlock, keep: bool, tape: Tape, index: int, is_last: bool, x1: Tensor, x2: Tensor
) -> Pair:
    if index > 0 and tape.passed != (_Identity(x1), _Identity(x2)):
        raise ReplayError(
            f"a hook changed the pair between units {tape.first + index - 1} and {tape.first + index} of a "
            "reversible sequence; the backward pass rebuilds what the unit returned. Change it inside F or "
            "G, or use strategy='store'."
        )
    plan = _Plan(unit, keep)
    y1, y2 = _Unit.apply(plan, tape, index, is_last, x1, x2, *plan.parameters)
    tape.passed = None if is_last else (_Identity(y1), _Identity(y2))
    return y1, y2


class _Identity:
    """Equal for two tensors only if they are the same numbers in the same memory, not written to since."""

    def __init__(self, x: Tensor) -> None:
        self.storage = x.untyped_storage()
        self.layout = x.storage_offset(), x.shape, x.stride(), x.dtype, x._version

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, _Identity)
        return self.storage._cdata == other.storage._cdata and self.layout == other.layout

    __hash__ = None  # type: ignore[assignment]


class _Unit(torch.autograd.Function):
    """One unit: forward without a graph, backward by replay."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: _Plan,
        tape: Tape,
        index: int,
        is_last: bool,
        x1: Tensor,
        x2: Tensor,
        *parameters: nn.Parameter,
    ) -> Pair:
        random = RandomState.current(x1)
        s1, random = plan.p1.record(x1, random) if plan.p1 else (x1, random)
        f, random = plan.f.record(x2, random)
        y1 = combine(s1, f)
        del s1, f
        s2, random = plan.p2.record(x2, random) if plan.p2 else (x2, random)
        g, _ = plan.g.record(y1, random)
        y2 = combine(s2, g)
        origin = tape.origin if index == 0 else None
        saved = (x1, x2) if plan.stores_input and origin is None else ()
        ctx.save_for_backward(*saved, *((y1, y2) if is_last else ()))
        ctx.plan, ctx.tape, ctx.index, ctx.is_last, ctx.origin = plan, tape, index, is_last, origin
        return y1, y2

    @staticmethod
    def backward(ctx: Any, dy1: Tensor, dy2: Tensor) -> tuple:
        if torch.is_grad_enabled():
            raise DoubleBackwardError()
        plan, tape = ctx.plan, ctx.tape
        plan.check_parameters()
        saved = list(ctx.saved_tensors)
        owns_input = True
        if plan.stores_input and ctx.origin is None:
            x1, x2 = saved.pop(0), saved.pop(0)
            # What an inner unit stored is seen by nobody else, and not read again unless the graph is kept.
            owns_input = ctx.index > 0 and not torch._C._autograd._get_current_graph_task_keep_graph()
        if ctx.is_last:
            y1, y2, owned = *saved, False
        else:
            y1, y2, owned = tape.take()
        del saved
        sums = _Sums(plan.parameters)

        with tape.autocast.restored():
            # G: its value rebuilds x2, its graph gives dL/dy1.
            leaf = _leaf(y1)
            g, root = plan.g.replay(leaf, for_value=plan.needs_values)
            if not plan.stores_input:
                x2 = separate(y2, g, overwrite=owned)
            del y2, g
            dy1 = _plus(sums.through(plan.g, root, leaf, dy2), dy1, keep=dy2)
            del root, leaf

            # F: the same for x1 and dL/dx2.
            if plan.stores_input and ctx.origin is not None:
                x1, x2 = ctx.origin.pair()
            leaf = _leaf(x2)
            f, root = plan.f.replay(leaf, for_value=plan.needs_values)
            if not plan.stores_input:
                x1 = separate(y1, f, overwrite=owned)
            del y1, f
            tape.put(ctx.index, x1, x2, owned=owns_input)
            dx2 = sums.through(plan.f, root, leaf, dy1)
            del root, leaf

            # The shortcuts: identities, or small modules of a stage entry.
            dx2 = _plus(dx2, sums.through_shortcut(plan.p2, x2, dy2), keep=dy1)
            dx1 = sums.through_shortcut(plan.p1, x1, dy1)
        return None, None, None, None, dx1, dx2, *sums.in_order()


class _Call:
    """One evaluation of a module in the forward pass, and its repetition in the backward pass.

    Attributes:
        module: F, G or a shortcut.
        evaluate: calls it, or what stands for it, under the unit's precision.
        parameters: its parameters that need a gradient.
    """

    __slots__ = ("_norms", "_random", "evaluate", "module", "parameters")

    def __init__(self, module: nn.Module, evaluate: Callable[[Function, Tensor], Tensor]) -> None:
        self.module = module
        self.evaluate = evaluate
        self.parameters, self._norms = survey(module)
        self._random: RandomState | None = None

    def record(self, x: Tensor, before: RandomState | None) -> tuple[Tensor, RandomState | None]:
        """Evaluate at `x`; keep the generator states from `before` only if numbers were drawn.

        Returns:
            The value, and the generator states after.
        """
        out = self.evaluate(self.module, x)
        after = RandomState.current(x)
        if before is None or after is None or before.same(after):
            return out, before
        self._random = before
        return out, after

    def replay(self, leaf: Tensor, *, for_value: bool) -> tuple[Tensor, GradientEdge | None]:
        """Evaluate at `leaf` with a graph, the same random numbers, and running statistics frozen.

        Returns:
            The value, detached (with `for_value` off, perhaps of the right shape alone), and the edge from
            which to differentiate. Keeping only the edge while differentiating frees the memory of the value.
        """
        random = nullcontext() if self._random is None else self._random.restored()
        function = None if for_value else without_value(self.module)
        with torch.enable_grad(), frozen_statistics(self._norms), random:
            out = self.evaluate(function or self.module, leaf)
        return out.detach(), get_gradient_edge(out) if out.requires_grad else None


class _Plan:
    """A unit as the forward pass found it: its calls, and all parameters that need a gradient, once each.

    Attributes:
        f: call of F.
        g: call of G.
        p1: call of the first shortcut; None for the identity.
        p2: call of the second.
        stores_input: whether the input pair is saved instead of rebuilt.
        needs_values: whether the backward pass needs the values of F and G: to rebuild the input, and, in an
            exact coupling, because every kernel must be that of the forward pass.
        parameters: inputs of the autograd Function.
    """

    __slots__ = ("_versions", "f", "g", "needs_values", "p1", "p2", "parameters", "stores_input")

    def __init__(self, unit: ReversibleBlock, keep: bool) -> None:
        _refuse_sharded(unit)
        self.f = _Call(unit.f, unit.residual)
        self.g = _Call(unit.g, unit.residual)
        self.p1 = self.p2 = None
        if isinstance(unit, StageEntry):
            self.p1 = _Call(unit.p1, lambda _, x: unit.shortcut1(x))
            self.p2 = _Call(unit.p2, lambda _, x: unit.shortcut2(x))
        self.stores_input = keep
        self.needs_values = not keep or unit.is_exact
        calls = (self.f, self.g, self.p1, self.p2)
        self.parameters = tuple({id(p): p for call in calls if call for p in call.parameters}.values())
        self._versions = tuple(p._version for p in self.parameters)

    def check_parameters(self) -> None:
        """Make sure that a replay uses the parameters of the forward pass.

        Raises:
            ReplayError: it would not.
        """
        for call in (self.f, self.g, self.p1, self.p2):
            if call is None:
                continue
            live, _ = survey(call.module)
            if len(live) != len(call.parameters) or any(map(operator.is_not, live, call.parameters)):
                raise ReplayError(
                    "a reversible unit's parameters were replaced, frozen or unfrozen between forward and "
                    "backward; the recomputation would use other values. Do so before the forward pass or "
                    "after the backward."
                )
        if any(p._version != version for p, version in zip(self.parameters, self._versions, strict=True)):
            raise ReplayError(
                "a reversible unit's parameters were modified in place between forward and backward (by an "
                "optimizer step?); the recomputation would use other values. Run the backward pass first."
            )


class _Sums:
    """Parameter gradients of one unit, summed where F, G and the shortcuts share a parameter."""

    def __init__(self, parameters: tuple[nn.Parameter, ...]) -> None:
        self._parameters = parameters
        self._sums: dict[int, Tensor] = {}

    def through(self, call: _Call, root: GradientEdge | None, x: Tensor, d_out: Tensor) -> Tensor | None:
        """Backpropagate `d_out` from `root` into the call's parameters; return the gradient of `x`."""
        if root is None:
            return None
        # What torch.autograd.grad does after half its time, spent on looking at arguments that are right.
        dx, *gradients = _engine_run_backward(
            (root,),
            (d_out,),
            False,
            False,
            (x, *call.parameters),
            allow_unreachable=True,
            accumulate_grad=False,
        )
        for p, gradient in zip(call.parameters, gradients, strict=True):
            if gradient is not None:
                earlier = self._sums.get(id(p))
                self._sums[id(p)] = gradient if earlier is None else earlier + gradient
        return dx

    def through_shortcut(self, call: _Call | None, x: Tensor, dy: Tensor) -> Tensor | None:
        """Backpropagate `dy` through a shortcut, whose values are not needed."""
        if call is None:
            return dy
        leaf = _leaf(x)
        return self.through(call, call.replay(leaf, for_value=True)[1], leaf, dy)

    def in_order(self) -> list[Tensor | None]:
        """The gradients in the order in which the parameters were passed to the Function."""
        return [self._sums.get(id(p)) for p in self._parameters]


def _refuse_sharded(unit: ReversibleBlock) -> None:
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    from torch.distributed.fsdp import FSDPModule

    for name, module in unit.named_modules():
        if name and isinstance(module, FSDPModule):
            raise ReplayError(
                f"fully_shard was applied to {name} inside a reversible unit: its parameters would be "
                "sharded when the unit is rebuilt. Apply it to whole units, or to the network."
            )


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_(True)


def _plus(a: Tensor | None, b: Tensor | None, *, keep: Tensor) -> Any:
    """``a + b`` in place of `a`, a gradient that autograd has just made, unless others share its memory."""
    if a is None or b is None:
        return b if a is None else a
    storage = a.untyped_storage()._cdata
    shared = storage in (b.untyped_storage()._cdata, keep.untyped_storage()._cdata)
    return a + b if shared or a.dtype != b.dtype else a.add_(b)
