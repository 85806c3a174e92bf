"""A reversible unit as the forward pass found it, and how the backward pass repeats and differentiates it.

The engine's forward pass makes a `Plan` of a unit and records its calls; the backward pass replays them under
what was in force then, and sums their parameter gradients.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, distributed, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from revmodels.coupling.block import ReversibleBlock, StageEntry
from revmodels.engine.kept_outputs import without_value
from revmodels.engine.replayed_state import RandomState, frozen_statistics, survey
from revmodels.errors import ReplayError
from revmodels.torch_internals import run_backward

Function = Callable[[Tensor], Tensor]


class Call:
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


class Plan:
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
        self.f = Call(unit.f, unit.residual)
        self.g = Call(unit.g, unit.residual)
        self.p1 = self.p2 = None
        if isinstance(unit, StageEntry):
            self.p1 = Call(unit.p1, lambda _, x: unit.shortcut1(x))
            self.p2 = Call(unit.p2, lambda _, x: unit.shortcut2(x))
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


class Sums:
    """Parameter gradients of one unit, summed where F, G and the shortcuts share a parameter."""

    def __init__(self, parameters: tuple[nn.Parameter, ...]) -> None:
        self._parameters = parameters
        self._sums: dict[int, Tensor] = {}

    def through(self, call: Call, root: GradientEdge | None, x: Tensor, d_out: Tensor) -> Tensor | None:
        """Backpropagate `d_out` from `root` into the call's parameters; return the gradient of `x`."""
        if root is None:
            return None
        dx, *gradients = run_backward((root,), (d_out,), (x, *call.parameters))
        for p, gradient in zip(call.parameters, gradients, strict=True):
            if gradient is not None:
                earlier = self._sums.get(id(p))
                self._sums[id(p)] = gradient if earlier is None else earlier + gradient
        return dx

    def through_shortcut(self, call: Call | None, x: Tensor, dy: Tensor) -> Tensor | None:
        """Backpropagate `dy` through a shortcut, whose values are not needed."""
        if call is None:
            return dy
        leaf = leaf_of(x)
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


def leaf_of(x: Tensor) -> Tensor:
    """The numbers of `x` as the start of a graph of its own."""
    return x.detach().requires_grad_(True)
