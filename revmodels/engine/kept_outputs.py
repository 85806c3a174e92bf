"""Evaluate a residual function for its gradients alone, where nobody needs its value.

An inverse needs the value of F and G. A unit that keeps its input does not: its backward pass evaluates them
for their graphs only, and the graph of a convolution or linear layer holds its input and weight, not its
value. So the last layer need not be computed again, one product in two for the units of a RevNet.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from revmodels.engine.layer_gradients import gradients_of, has_gradients
from revmodels.torch_internals import has_global_hook, has_hooks, is_autocast_enabled


def without_value(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Return `module` without the numbers of its last layer: a tensor of the right shape with the right
    gradients.

    None if that cannot be had: `module` is no `nn.Sequential` whose last layer is a plain convolution or
    linear layer, or somebody's hooks would miss a call. The naive twin is `module` itself.
    """
    if not isinstance(module, nn.Sequential) or type(module).forward is not nn.Sequential.forward:
        return None
    if not len(module) or _is_watched(module) or _is_watched(module[-1]):
        return None
    *layers, last = module
    return _Rest(layers, last) if has_gradients(last) else None


def _is_watched(module: nn.Module) -> bool:
    return has_hooks(module) or "forward" in vars(module) or has_global_hook()


class _Rest:
    """The layers before the last, and what stands for the last."""

    def __init__(self, layers: list[nn.Module], last: nn.Module) -> None:
        self._layers, self._last = layers, last

    def __call__(self, x: Tensor) -> Tensor:
        for layer in self._layers:
            x = layer(x)
        # Autocast would convert the input and the weight first.
        if is_autocast_enabled(x.device.type) or x.dtype != self._last.weight.dtype or x.dim() < 2:
            return self._last(x)
        out = gradients_of(self._last, x, None)
        assert out is not None
        return out
