"""The reversible engine: backpropagation through coupled units without their activations.

Each unit is one `autograd.Function`. Its forward saves nothing; only the last unit of a run saves the pair it
returns, and a unit with ``stores_input`` saves the pair it receives. In the backward pass the units hand the
rebuilt pair to one another through a `Tape`, last to first (Gomez et al. 2017, algorithm 1), in one extra
evaluation of F and G each: the value of G(y1) under grad rebuilds x2, and the graph of the same call is then
differentiated.

Parameters are inputs of the Function and their gradients are returned. So they arrive block by block, and
everything that watches the autograd graph (`torch.autograd.grad`, hooks, DDP) sees an ordinary one.

The naive twin is `revmodels.coupling`: the same units called as plain modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from revmodels.coupling import Pair, ReversibleBlock
from revmodels.errors import ReplayError, ResidualError
from revmodels.replay import Autocast, RandomState, batch_norms, frozen_statistics

Observer = Callable[[int, Tensor, Tensor], None]
"""Called in the backward pass with a unit's position and its input pair, as rebuilt or as stored."""


class Tape:
    """What the units of one forward call share until its backward pass.

    Attributes:
        autocast: the autocast state of the forward pass.
        pair: the output pair of the unit whose backward comes next.
        owned: whether that pair was rebuilt here, so that nobody else reads it and it may be overwritten.

    """

    def __init__(self, x: Tensor, observer: Observer | None) -> None:
        self.autocast = Autocast.current(x.device.type)
        self.observer = observer
        self.pair: Pair | None = None
        self.owned = False

    def put(self, index: int, x1: Tensor, x2: Tensor, *, owned: bool) -> None:
        """Leave the pair for the preceding unit."""
        if self.observer is not None:
            self.observer(index, x1, x2)
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


def run(units: Sequence[ReversibleBlock], x1: Tensor, x2: Tensor, observer: Observer | None = None) -> Pair:
    """Apply `units` in turn, rebuilding activations in the backward pass.

    Args:
        units: blocks and stage entries, first to last.
        x1: first stream, of any shape that F and G keep.
        x2: second stream.
        observer: sees every input pair in the backward pass.

    Raises:
        ReplayError: in the backward pass, if a parameter was replaced or modified since the forward pass.
        ResidualError: F or G changed the shape of its input.

    """
    tape = Tape(x1, observer)
    for index, unit in enumerate(units):
        parameters = tuple(p for p in unit.parameters() if p.requires_grad)
        is_last = index == len(units) - 1
        x1, x2 = _Unit.apply(unit, tape, index, is_last, x1, x2, *parameters)
    return x1, x2


class _Unit(torch.autograd.Function):
    """One unit: forward without a graph, backward by replay."""

    @staticmethod
    def forward(
        ctx: Any,
        unit: ReversibleBlock,
        tape: Tape,
        index: int,
        is_last: bool,
        x1: Tensor,
        x2: Tensor,
        *parameters: nn.Parameter,
    ) -> Pair:
        f_call, r = _Call.record(unit, unit.f, x2)
        y1 = _add(unit.shortcut1(x1), r)
        g_call, r = _Call.record(unit, unit.g, y1)
        y2 = _add(unit.shortcut2(x2), r)
        saved = (x1, x2) if unit.stores_input else ()
        ctx.save_for_backward(*saved, *((y1, y2) if is_last else ()))
        ctx.unit, ctx.tape, ctx.index, ctx.is_last = unit, tape, index, is_last
        ctx.calls = f_call, g_call
        ctx.parameters = parameters
        ctx.versions = tuple(p._version for p in parameters)
        return y1, y2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy1: Tensor, dy2: Tensor) -> tuple:
        unit, tape, (f_call, g_call) = ctx.unit, ctx.tape, ctx.calls
        _check_parameters(ctx)
        saved = list(ctx.saved_tensors)
        if unit.stores_input:
            x1, x2 = saved.pop(0), saved.pop(0)
        if ctx.is_last:
            y1, y2, owned = *saved, False
        else:
            y1, y2, owned = tape.take()
        del saved
        gradients = _Gradients(ctx.parameters)

        with tape.autocast.restored():
            # G: its value rebuilds x2, its graph gives dL/dy1.
            y1_leaf = _leaf(y1)
            with g_call.replayed():
                g = unit.residual(unit.g, y1_leaf)
            if not unit.stores_input:
                x2 = y2.sub_(g.detach()) if owned else y2 - g.detach()
            del y2
            dy1 = _plus(gradients.through(g, y1_leaf, dy2, unit.g), dy1, keep=dy2)
            del g, y1_leaf

            # F: the same for x1 and dL/dx2.
            x2_leaf = _leaf(x2)
            with f_call.replayed():
                f = unit.residual(unit.f, x2_leaf)
            if not unit.stores_input:
                x1 = y1.sub_(f.detach()) if owned else y1 - f.detach()
            del y1
            tape.put(ctx.index, x1, x2, owned=not unit.stores_input)
            dx2 = gradients.through(f, x2_leaf, dy1, unit.f)
            del f, x2_leaf
            dx2 = _plus(dx2, gradients.through_shortcut(unit, unit.shortcut2, "p2", x2, dy2), keep=dy1)
            dx1 = gradients.through_shortcut(unit, unit.shortcut1, "p1", x1, dy1)
        return None, None, None, None, dx1, dx2, *gradients.in_order()


class _Call:
    """One evaluation of F or G: what its replay has to put back."""

    __slots__ = ("norms", "random")

    def __init__(self, norms: tuple, random: RandomState | None) -> None:
        self.norms = norms
        self.random = random

    @classmethod
    def record(cls, unit: ReversibleBlock, fn: nn.Module, x: Tensor) -> tuple[_Call, Tensor]:
        """Evaluate ``fn(x)``; keep the generator states from before only if it drew numbers."""
        random = RandomState.current(x)
        r = unit.residual(fn, x)
        drew = random is not None and random.moved()
        return cls(batch_norms((fn,)), random if drew else None), r

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """A context with gradients on, the same random numbers, and running statistics frozen."""
        with torch.enable_grad(), frozen_statistics(self.norms):
            if self.random is None:
                yield
            else:
                with self.random.restored():
                    yield


class _Gradients:
    """Parameter gradients of one unit, summed where F, G and the shortcuts share a parameter."""

    def __init__(self, parameters: tuple[nn.Parameter, ...]) -> None:
        self._parameters = parameters
        self._sums: dict[int, Tensor] = {}

    def through(self, out: Tensor, x: Tensor, d_out: Tensor, module: nn.Module) -> Tensor | None:
        """Backpropagate `d_out` from `out` into `module`'s parameters; return the gradient of `x`."""
        if not out.requires_grad:
            return None
        parameters = [p for p in module.parameters() if p.requires_grad]
        dx, *gradients = torch.autograd.grad(out, (x, *parameters), d_out, allow_unused=True)
        for p, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                earlier = self._sums.get(id(p))
                self._sums[id(p)] = gradient if earlier is None else earlier + gradient
        return dx

    def through_shortcut(
        self, unit: ReversibleBlock, shortcut: Callable[[Tensor], Tensor], name: str, x: Tensor, dy: Tensor
    ) -> Tensor | None:
        """Backpropagate through a shortcut: the identity for a block, a small module for a stage entry."""
        module = getattr(unit, name, None)
        if module is None:
            return dy
        x_leaf = _leaf(x)
        with torch.enable_grad(), frozen_statistics(batch_norms((module,))):
            out = shortcut(x_leaf)
        return self.through(out, x_leaf, dy, module)

    def in_order(self) -> list[Tensor | None]:
        """The gradients in the order in which the parameters were passed to the Function."""
        return [self._sums.get(id(p)) for p in self._parameters]


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_(True)


def _add(x: Tensor, r: Tensor) -> Tensor:
    if r.shape != x.shape:
        raise ResidualError(
            f"F and G must keep the shape of their input; received {tuple(x.shape)} and returned "
            f"{tuple(r.shape)}. Change the shape between reversible sequences, or in a stage entry."
        )
    return x + r


def _plus(a: Tensor | None, b: Tensor | None, *, keep: Tensor) -> Any:
    """``a + b`` in place of `a`, a gradient that autograd has just made, unless others share its memory."""
    if a is None or b is None:
        return b if a is None else a
    storage = a.untyped_storage()._cdata
    shared = storage in (b.untyped_storage()._cdata, keep.untyped_storage()._cdata)
    return a + b if shared or a.dtype != b.dtype else a.add_(b)


def _check_parameters(ctx: Any) -> None:
    live = [p for p in ctx.unit.parameters() if p.requires_grad]
    same = len(live) == len(ctx.parameters) and all(p is q for p, q in zip(live, ctx.parameters, strict=True))
    if not same:
        raise ReplayError(
            "a reversible unit's parameters were replaced, frozen or unfrozen between forward and backward; "
            "the recomputation would use other values. Do so before the forward pass or after the backward."
        )
    if any(p._version != version for p, version in zip(live, ctx.versions, strict=True)):
        raise ReplayError(
            "a reversible unit's parameters were modified in place between forward and backward (by an "
            "optimizer step?); the recomputation would use other values. Run the backward pass first."
        )
