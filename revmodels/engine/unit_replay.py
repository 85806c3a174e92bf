"""A reversible unit as the forward pass found it, and how the backward pass repeats and differentiates it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.graph import GradientEdge

from revmodels.coupling.block import ReversibleBlock
from revmodels.coupling.context import Pair
from revmodels.coupling.linear import ADDITIVE, Numbers
from revmodels.coupling.stage_entry import StageEntry
from revmodels.engine.evaluation import Evaluation
from revmodels.engine.given import Given
from revmodels.engine.replayed_state import Autocast
from revmodels.errors import ReplayError
from revmodels.torch_internals import run_backward


class UnitReplay:
    """A unit as the forward pass found it: its evaluations, and all tensors that need a gradient, once each.

    Args:
        unit: a block or a stage entry.
        keeps_input: whether the input pair is saved instead of rebuilt.
        name: of the unit, for messages.
        given: the context that F and G are given; None without one.
        layers: names of layers in the unit whose outputs are kept, such as ``f.2``.

    Attributes:
        name: as given.
        f: evaluation of F.
        g: evaluation of G.
        p1: evaluation of the first shortcut; None for the identity.
        p2: evaluation of the second.
        keeps_input: as given.
        needs_values: whether the backward pass needs the values of F and G: to rebuild the input, and, in an
            exact coupling, because every kernel must be that of the forward pass.
        inputs_need: of each input stream, whether it needs a gradient.
        outputs_need: of each output stream, whether it needs one, as with stored activations.
        outputs: the output pair, until the autograd Function takes it.
        side: side information of the two input streams, which an exact inverse needs; likewise.

    Raises:
        ReplayError: the unit's parameters are sharded within it.
    """

    __slots__ = (
        *("_given", "_seeds", "_unit", "f", "g", "inputs_need", "keeps_input", "name"),
        *("side", "needs_values", "outputs", "outputs_need", "p1", "p2"),
    )

    def __init__(
        self,
        unit: ReversibleBlock,
        keeps_input: bool,
        name: str,
        given: Given | None = None,
        layers: Sequence[str] = (),
    ) -> None:
        _refuse_sharded(unit)
        self._given = given
        self.name = name
        self._unit = unit
        self._seeds: tuple[int | None, int | None] = (None, None)

        def evaluation(fn: nn.Module, name: str, letter: str) -> Evaluation:
            evaluate = unit.residual if given is None else partial(given.evaluate, unit.residual, name)
            return Evaluation(fn, evaluate, name, [n[2:] for n in layers if n.startswith(letter)])

        self.f = evaluation(unit.f, f"F of {name}", "f.")
        self.g = evaluation(unit.g, f"G of {name}", "g.")
        self.p1 = self.p2 = None
        if isinstance(unit, StageEntry):
            self.p1 = Evaluation(unit.p1, lambda _, x: unit.shortcut1(x), f"the first shortcut of {name}")
            self.p2 = Evaluation(unit.p2, lambda _, x: unit.shortcut2(x), f"the second shortcut of {name}")
        self.keeps_input = keeps_input
        self.needs_values = not keeps_input or unit.is_exact
        self.inputs_need = self.outputs_need = (True, True)
        self.outputs: Pair | None = None
        self.side: tuple[Tensor, ...] = ()

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """All tensors beside the input that need a gradient; inputs of the autograd Function."""
        evaluations = (self.f, self.g, self.p1, self.p2)
        return tuple({id(p): p for e in evaluations if e for p in e.parameters}.values())

    def take_kept(self) -> list[Tensor | None]:
        """What the kept layers of F and then of G returned, see `KeptLayers.take`; held here no longer."""
        return [out for e in (self.f, self.g) if e.layers for out in e.layers.take()]

    def split_kept(self, saved: list[Any]) -> tuple[list[Any], list[Any]]:
        """Take what `take_kept` has returned from the end of a list: that of F, and that of G."""
        of_g = _take_last(saved, self.g)
        return _take_last(saved, self.f), of_g

    @property
    def has_context(self) -> bool:
        """Whether F and G are given more than their stream."""
        return self._given is not None

    def check_context(self) -> None:
        """Refuse a replay on a context with other numbers, see `revmodels.engine.given.Watch.check`."""
        if self._given is not None:
            self._given.check(self.name)

    @property
    def sources(self) -> tuple[Tensor, ...]:
        """The same, as autograd knows them: of the context, what was received in place of its stand-ins."""
        if self._given is None:
            return self.parameters
        return tuple(self._given.source(p) for p in self.parameters)

    def record(self, x1: Tensor, x2: Tensor) -> None:
        """Evaluate the unit for the first time, and leave the pair in `outputs`.

        Args:
            x1: first stream, of any shape and dtype.
            x2: second stream.
        """
        unit, training = self._unit, self._unit.training
        need1, need2 = self.inputs_need = x1.requires_grad, x2.requires_grad
        with torch.no_grad():
            s1 = self.p1.record(x1, (x1,), needs_gradient=need1) if self.p1 else x1
            first = unit.rule.seed(x1, training)
            numbers = unit.numbers(x1, first)
            y1 = unit.combined(numbers, s1, x2, self.f.record(x2, (x2,), needs_gradient=need2))
            del s1
            need1 = self.p1.needs_gradient if self.p1 else need1
            need_y1 = self.f.needs_gradient or _needs(numbers, need1, need2)
            s2 = self.p2.record(x2, (x2,), needs_gradient=need2) if self.p2 else x2
            second = unit.rule.seed(x2, training)
            numbers = unit.numbers(x2, second)
            r = self.g.record(y1, (x1, x2, *self.parameters), needs_gradient=need_y1)
            self.outputs = y1, unit.combined(numbers, s2, y1, r)
            if not self.keeps_input:
                found = (unit.side_information(x1), unit.side_information(x2))
                self.side = tuple(bits for bits in found if bits is not None)
        need2 = self.p2.needs_gradient if self.p2 else need2
        self.outputs_need = need_y1, self.g.needs_gradient or _needs(numbers, need2, need_y1)
        self._seeds = first, second

    def separated(self, numbers: Numbers, y: Tensor, z: Tensor, r: Tensor, side: Tensor | None) -> Tensor:
        """The stream before a half, see `ReversibleBlock.separated`."""
        return self._unit.separated(numbers, y, z, r, side)

    def numbers(self, half: int, x: Tensor) -> Numbers:
        """The three numbers of a half in the forward pass.

        Args:
            half: 0 for that of F, 1 for that of G.
            x: the stream that it updates, or a tensor of its shape and dtype.

        Returns:
            The numbers; drawn ones are drawn again.
        """
        return self._unit.numbers(x, self._seeds[half])


def _take_last(saved: list[Any], evaluation: Evaluation) -> list[Any]:
    count = len(evaluation.layers.names) if evaluation.layers else 0
    taken = saved[len(saved) - count :]
    del saved[len(saved) - count :]
    return taken


def _needs(numbers: Numbers, updated: bool, other: bool) -> bool:
    """Whether the updated stream needs a gradient because one of the two streams does."""
    if numbers is ADDITIVE:
        return updated
    alpha, beta, _ = (isinstance(n, Tensor) or n != 0 for n in numbers)
    return (alpha and updated) or (beta and other)


class ParameterGradients:
    """Parameter gradients of one unit, summed where F, G and the shortcuts share a parameter.

    Args:
        parameters: of the unit.
        autocast: the state in force where the caller differentiates. A stored graph is differentiated under
            it, whatever was in force in the forward pass.
    """

    def __init__(self, parameters: Sequence[Tensor], autocast: Autocast) -> None:
        self._parameters = parameters
        self._autocast = autocast
        self._sums: dict[int, Tensor] = {}

    def through(
        self, evaluation: Evaluation, root: GradientEdge | None, x: Tensor, d_out: Tensor | None
    ) -> Tensor | None:
        """Backpropagate `d_out` from `root` into the evaluation's parameters; return that of `x`, if any."""
        inputs = (x, *evaluation.parameters) if x.requires_grad else tuple(evaluation.parameters)
        if root is None or d_out is None or not inputs:
            return None
        try:
            with self._autocast.restored():
                found = run_backward((root,), (single_contiguous(d_out),), inputs)
        except RuntimeError as error:
            if "use_reentrant" not in str(error):
                raise
            raise ReplayError(
                f"{evaluation.name} uses torch.utils.checkpoint with use_reentrant=True, which works under "
                "Tensor.backward() alone, and units are differentiated one by one. Use use_reentrant=False."
            ) from error
        dx, gradients = (found[0], found[1:]) if x.requires_grad else (None, found)
        for p, gradient in zip(evaluation.parameters, gradients, strict=True):
            if gradient is not None:
                earlier = self._sums.get(id(p))
                self._sums[id(p)] = gradient if earlier is None else earlier + gradient
        return dx

    def through_shortcut(
        self, evaluation: Evaluation | None, x: Tensor, dy: Tensor | None, *, needs_gradient: bool
    ) -> Tensor | None:
        """Backpropagate `dy` through a shortcut, whose values are not needed."""
        if evaluation is None or dy is None:
            return dy
        leaf = leaf_of(x, needs_gradient=needs_gradient)
        return self.through(evaluation, evaluation.replay(leaf, for_value=True)[1], leaf, dy)

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


def single_contiguous(d: Tensor) -> Tensor:
    """The gradient of a single image as a contiguous tensor; any other stays as it is.

    PyTorch 2.14's instance norm takes that of a single channels-last image for a contiguous one, and its
    derivatives are wrong then. With stored activations none comes in that layout where streams are halves.

    Args:
        d: (N, C, H, W), (N, C, D, H, W) or any other shape.

    Returns:
        `d`, or a copy of its numbers where N is 1.
    """
    is_single = d.dim() in (4, 5) and d.shape[0] == 1
    return d.contiguous() if is_single else d


def leaf_of(x: Tensor, *, needs_gradient: bool) -> Tensor:
    """The numbers of `x` as the start of a graph of its own."""
    # What needs no gradient with stored activations needs none here: hooks in F are called where they are
    # called there, and nothing is computed that nobody asks for.
    return x.detach().requires_grad_(needs_gradient)
