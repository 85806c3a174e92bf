"""Outputs of single layers that a unit keeps from its forward pass, so that its replay need not compute them.

While F or G is evaluated, its chosen layers have another `forward`: in the forward pass one that notes what
the layer returns, in the replay one that returns it again, with the layer's own gradients
(`revmodels.engine.layer_gradients`): those of a convolution or linear layer need its input and its weight,
which the replay has, and not its value.

A layer is kept where that is certain to be the same: it is a plain convolution or linear layer without hooks,
the function calls it once, with one tensor, and nobody writes to what it returned. Any other is computed
again, and so is every layer in a graph that a compiler makes. The naive twin is the function itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from revmodels.coupling.block import ReversibleBlock
from revmodels.engine.known_layers import plain_layers
from revmodels.engine.layer_gradients import PLAIN_TENSORS, gradients_of, has_gradients
from revmodels.errors import ReplayError
from revmodels.torch_internals import (
    has_global_hook,
    is_compiled,
    own_children,
    top_saved_tensors_hooks,
    version,
)


def keepable_layers_of(unit: ReversibleBlock) -> list[str]:
    """The same of both functions of a unit, as `revmodels.engine.eager.run` takes them: ``f.2``, ``g.2``."""
    halves = (("f", unit.f), ("g", unit.g))
    return [f"{letter}.{name}" for letter, function in halves for name in keepable_layers(function)]


def keepable_layers(function: nn.Module) -> list[str]:
    """Names of the layers in `function` whose output may be kept, as far as the layers themselves tell.

    Args:
        function: F or G.

    Returns:
        The names as ``function.get_submodule`` takes them, one for each layer.
    """
    found: dict[int, str] = {}
    waiting = [("", function)]
    while waiting:
        name, module = waiting.pop()
        # Units within a unit look at their layers themselves, and a compiler at all it is given.
        if isinstance(module, ReversibleBlock) or is_compiled(module) or id(module) in found:
            continue
        if name and _is_keepable(module):
            found[id(module)] = name
        children = own_children(module).items()
        waiting += [(f"{name}.{key}" if name else key, child) for key, child in children if child is not None]
    return sorted(found.values())


def _is_keepable(layer: nn.Module) -> bool:
    return has_gradients(layer) and plain_layers(layer) is not None and not has_global_hook()


class _Noted:
    """What one layer returned."""

    def __init__(self) -> None:
        self.calls = 0
        self.output: Tensor | None = None
        self.version = 0


class KeptLayers:
    """Some layers of one F or G, and what they returned in the forward pass.

    Args:
        function: F or G.
        names: of the layers in it; one that is not there, or cannot be kept, is computed again.
        name: of the function, for messages.
    """

    __slots__ = ("_layers", "_name", "_noted", "names")

    def __init__(self, function: nn.Module, names: Sequence[str], name: str) -> None:
        self.names = tuple(names)
        self._name = name
        self._layers: list[nn.Module | None] = []
        for layer_name in self.names:
            try:
                layer = function.get_submodule(layer_name)
            except AttributeError:
                layer = None
            self._layers.append(layer if layer is not None and _is_keepable(layer) else None)
        self._noted: list[_Noted] = []

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """A context in which the function is called for the first time."""
        around = top_saved_tensors_hooks()
        self._noted = [_Noted() for _ in self.names]
        with _forwards(
            (layer, partial(_record, layer, noted, around))
            for layer, noted in zip(self._layers, self._noted, strict=True)
            if layer is not None
        ):
            yield

    def take(self) -> list[Tensor | None]:
        """Hand over what the layers have returned, which is then held here no longer.

        Returns:
            An output for each name; None for one that is not kept.
        """
        noted, self._noted = self._noted, []
        return [
            None if n.output is None or n.calls != 1 or version(n.output) != n.version else n.output.detach()
            for n in noted
        ]

    @contextmanager
    def replayed(self, outputs: Sequence[Tensor | None]) -> Iterator[None]:
        """A context in which the function is called again.

        Args:
            outputs: from `take`.
        """
        around = top_saved_tensors_hooks()
        with _forwards(
            (layer, _Replay(layer, output, around, self._name))
            for layer, output in zip(self._layers, outputs, strict=True)
            if layer is not None and output is not None
        ):
            yield


@contextmanager
def _forwards(replaced: Iterator[tuple[nn.Module, Callable[..., Tensor]]]) -> Iterator[None]:
    """A context in which layers have other methods `forward`; their hooks, if any, run around those."""
    tables: list[dict[str, Any]] = []
    try:
        for layer, forward in replaced:
            own = vars(layer)
            if "forward" not in own:
                own["forward"] = forward
                tables.append(own)
        yield
    finally:
        for own in tables:
            own.pop("forward", None)


def _forward(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return type(layer).forward(layer, *args, **kwargs)


def _is_ordinary(args: tuple, kwargs: dict[str, Any], around: Any) -> bool:
    """Whether a call is one by a tensor alone, and no checkpoint within the function will repeat it."""
    return (
        len(args) == 1
        and not kwargs
        and type(args[0]) in PLAIN_TENSORS
        and args[0].dim() > 1
        and not args[0].is_complex()
        and top_saved_tensors_hooks() == around
    )


def _record(layer: nn.Module, noted: _Noted, around: Any, *args: Any, **kwargs: Any) -> Any:
    out = _forward(layer, *args, **kwargs)
    if torch.compiler.is_compiling():
        return out
    noted.calls += 1
    # Of inference mode there are no versions, so nobody could tell whether it was written to.
    if _is_ordinary(args, kwargs, around) and type(out) in PLAIN_TENSORS and not out.is_inference():
        noted.output, noted.version = out, version(out)
    return out


class _Replay:
    """The method `forward` of a layer whose output is known."""

    def __init__(self, layer: nn.Module, output: Tensor, around: Any, name: str) -> None:
        self._layer, self._output, self._around, self._name = layer, output, around, name
        self._is_used = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or not _is_ordinary(args, kwargs, self._around):
            return _forward(self._layer, *args, **kwargs)
        out = None if self._is_used else gradients_of(self._layer, args[0], self._output)
        if out is None:
            raise ReplayError(
                f"{self._name} calls its {type(self._layer).__name__} otherwise in the backward pass than in "
                "the forward pass, so that the output that was kept of it is another's. Let it take the "
                "same path in both, or use strategy='store'."
            )
        self._is_used = True
        return out
