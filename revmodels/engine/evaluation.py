"""One evaluation of F, G or a shortcut in the forward pass, and its repetition in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from revmodels.engine.changes import NO_CHANGES
from revmodels.engine.graph_of_call import (
    entrance,
    passage,
    saving_nothing,
    tensors_read,
    without_autocast_cache,
)
from revmodels.engine.kept_layers import KeptLayers
from revmodels.engine.kept_outputs import without_value
from revmodels.engine.known_layers import DRAWING, layers_of, layers_within_reach
from revmodels.engine.module_state import Picture, picture_of
from revmodels.engine.replayed_state import RandomState
from revmodels.engine.watched_call import Watch, put_back_to
from revmodels.errors import ReplayError, TransformError
from revmodels.running_statistics import frozen_statistics
from revmodels.torch_internals import own_buffers, own_parameters, version, without_new_gradient_hooks

Function = Callable[[Tensor], Tensor]


_NOTHING = Picture([], watched=False)


class Evaluation:
    """One call of a module, as the forward pass found it.

    A module of plain layers is simply called: what it reads and writes is known. Any other is watched: it
    runs with a graph in both passes, what it changes is put back for the replay, and tensors that it reads
    beside its parameters are found in its graph.

    Args:
        module: F, G or a shortcut.
        evaluate: calls it, or what stands for it, under the unit's precision.
        name: of the module, for messages.
        layers: names of layers in `module` whose outputs are kept for the replay.

    Attributes:
        name: as given.
        layers: those layers; None without any.
        needs_gradient: whether its result needs one, as with stored activations: its argument does, or a
            tensor that the result depends on.
        parameters: the tensors that it reads and that need a gradient, once each; empty
            before it is recorded.
    """

    __slots__ = (
        *("_beside", "_changes", "_evaluate", "_marks", "_module", "_picture", "_random", "name"),
        *("layers", "needs_gradient", "parameters"),
    )

    def __init__(
        self,
        module: nn.Module,
        evaluate: Callable[[Function, Tensor], Tensor],
        name: str,
        layers: Sequence[str] = (),
    ) -> None:
        self._module = module
        self.layers = KeptLayers(module, layers, name) if layers else None
        self._evaluate = evaluate
        self.name = name
        self._picture = _NOTHING
        self.needs_gradient = False
        self.parameters: list[Tensor] = []
        self._random: RandomState | None = None
        self._changes = NO_CHANGES
        self._beside: list[Tensor] = []
        self._marks: list[int] = []

    def record(self, x: Tensor, computed_from: Sequence[Tensor], *, needs_gradient: bool) -> Tensor:
        """Evaluate for the first time, without storing a graph.

        Args:
            x: the argument, of any shape and dtype.
            computed_from: the tensors that `x` depends on.
            needs_gradient: whether `x` needs a gradient, as with stored activations.

        Returns:
            The value, without a graph.

        Raises:
            ReplayError: the module cannot be repeated in the backward pass.
        """
        self._picture = picture = picture_of(self._module)
        self.parameters = picture.parameters
        before = version(x)
        self.needs_gradient = needs_gradient
        out = self._record_watched(x, computed_from) if picture.watched else self._record_plain(x)
        if version(x) != before:
            raise ReplayError(
                f"{self.name} changes its argument in place, and the backward pass needs it as it was. Let "
                "its first layer write to memory of its own (inplace=False)."
            )
        return out

    def _record_plain(self, x: Tensor) -> Tensor:
        draws = any(isinstance(layer, DRAWING) and layer.training for layer in self._picture.layers)
        self._random = RandomState.current(x) if draws else None
        with torch.no_grad(), self.layers.recorded() if self.layers else nullcontext():
            out = self._evaluate(self._module, x)
        refuse_tangents(out)
        self.needs_gradient = self.needs_gradient or bool(self.parameters)
        return out

    def _record_watched(self, x: Tensor, computed_from: Sequence[Tensor]) -> Tensor:
        picture = self._picture
        self._refuse_lazy(picture.layers)
        random, before = RandomState.current(x), Watch(picture)
        start = entrance(x, self.name, computed_from)
        with saving_nothing(self.name), self.layers.recorded() if self.layers else nullcontext():
            out = self._evaluate(self._module, start if self.needs_gradient else start.detach())
        refuse_tangents(out)
        self.needs_gradient = out.requires_grad
        after = RandomState.current(x)
        if random is not None and after is not None and not random.same(after):
            self._random = random
        found = tensors_read(out, start, picture.parameters, picture.held, self.name)
        # A parameter that the result does not depend on gets no gradient, and its hooks are not called.
        self.parameters = found
        known = {id(p) for p in picture.parameters}
        self._beside = [t for t in found if id(t) not in known]
        self._marks = [version(t) for t in self._beside]
        changes = before.changes(self.name)
        if changes:
            self._changes, self._picture = changes, Picture(picture.layers, watched=True)
        return out.detach()

    def _refuse_lazy(self, layers: list[nn.Module]) -> None:
        for layer in layers:
            for key, p in (*own_parameters(layer).items(), *own_buffers(layer).items()):
                if isinstance(p, UninitializedParameter | UninitializedBuffer):
                    raise ReplayError(
                        f"{key!r} of {type(layer).__name__} in {self.name} has no shape yet. Call the "
                        "network "
                        "once with strategy='store', or under torch.no_grad(), to give its lazy layers "
                        "theirs."
                    )

    def replay(
        self, leaf: Tensor, *, for_value: bool, kept: Sequence[Tensor | None] = ()
    ) -> tuple[Tensor, GradientEdge | None]:
        """Evaluate again, with a graph and with everything else as in the forward pass.

        Args:
            leaf: the argument, as the start of the graph.
            for_value: whether the value is needed, and not only its gradients.
            kept: what the kept layers returned, from ``layers.take()``.

        Returns:
            The value, detached (with `for_value` off, perhaps of the right shape alone), and the edge from
            which to differentiate. Keeping only the edge while differentiating frees the memory of the value.

        Raises:
            ReplayError: the module reads other tensors than in the forward pass.
        """
        picture = self._picture if self._picture.is_unchanged() else self._checked()
        if any(version(t) != mark for t, mark in zip(self._beside, self._marks, strict=True)):
            raise ReplayError(
                f"a tensor that {self.name} reads beside its parameters was modified in place between "
                "forward "
                "and backward; the recomputation would use other values. Run the backward pass first."
            )
        function = None if for_value else without_value(self._module)
        evaluate = function or self._module
        # Norms that would move now: in a replay around the forward pass they may have been frozen.
        known = self.layers.replayed(kept) if self.layers else nullcontext()
        with torch.enable_grad(), frozen_statistics(picture.norms):
            if picture.watched:
                out = self._again_watched(evaluate, leaf, picture, known)
            else:
                with self._random.restored() if self._random is not None else nullcontext(), known:
                    out = self._evaluate(evaluate, leaf)
        return out.detach(), get_gradient_edge(out) if out.requires_grad else None

    def _again_watched(
        self, function: Function, leaf: Tensor, picture: Picture, known: AbstractContextManager
    ) -> Tensor:
        with ExitStack() as stack:
            stack.enter_context(put_back_to(self._changes, picture, self.name))
            stack.enter_context(RandomState.kept(leaf))
            stack.enter_context(without_autocast_cache())
            # A hook that F puts on a leaf is there since the forward pass, and would be called twice.
            stack.enter_context(without_new_gradient_hooks(self.parameters))
            if self._random is not None:
                stack.enter_context(self._random.restored())
            stack.enter_context(known)
            out = self._evaluate(function, passage(leaf))
        self._check_leaves(out, leaf)
        return out

    def _checked(self) -> Picture:
        """A picture as the module is now, which differs from that of the forward pass as it may at most."""
        watched = self._picture.watched
        layers = (layers_within_reach if watched else layers_of)(self._module)
        now = Picture(layers, watched=watched)
        self._picture.check(now, self.name, self._changes)
        return now

    def _check_leaves(self, out: Tensor, leaf: Tensor) -> None:
        found = tensors_read(out, leaf, self._picture.parameters, self._beside, self.name)
        read, expected = {id(t) for t in found}, {id(t) for t in self.parameters}
        # A parameter that is not read this time has no gradient; another would have none to go to.
        if not read <= expected or not {id(t) for t in self._beside} <= read:
            raise ReplayError(
                f"{self.name} reads other tensors than in the forward pass: one was "
                "replaced, frozen or unfrozen between forward and backward. Do so before the forward pass or "
                "after the backward."
            )


def refuse_tangents(*tensors: Tensor) -> None:
    """Make sure that no forward-mode differentiation is under way.

    Args:
        tensors: what it would have come through.

    Raises:
        TransformError: one of them carries a tangent.
    """
    if any(unpack_dual(x).tangent is not None for x in tensors):
        raise TransformError("forward-mode differentiation")
