"""Evaluate a residual function for its gradients alone, where nobody needs its value.

An inverse needs the value of F and G. A unit that keeps its input does not: its backward pass evaluates them
for their graphs only, and the graph of a convolution or linear layer holds its input and weight, not its
value. So the last layer need not be computed again, one product in two for the units of a RevNet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from revmodels.torch_internals import (
    FakeTensor,
    has_global_hook,
    has_hooks,
    is_autocast_enabled,
    own_parameters,
)

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


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
    weight = own_parameters(last).get("weight")
    # The gradients below are those of real numbers in a plain tensor.
    if weight is None or type(weight) not in (Tensor, nn.Parameter, FakeTensor) or weight.is_complex():
        return None
    if type(last) is nn.Linear:
        return _Rest(layers, last, _linear)
    if type(last) in CONVOLUTIONS and isinstance(last.padding, tuple) and last.padding_mode == "zeros":
        return _Rest(layers, last, _convolution)
    return None


def _is_watched(module: nn.Module) -> bool:
    return has_hooks(module) or "forward" in vars(module) or has_global_hook()


class _Rest:
    """The layers before the last, and what stands for the last."""

    def __init__(self, layers: list[nn.Module], last: nn.Module, stand_in: Callable[[Any, Tensor], Tensor]):
        self._layers, self._last, self._stand_in = layers, last, stand_in

    def __call__(self, x: Tensor) -> Tensor:
        for layer in self._layers:
            x = layer(x)
        # Autocast would convert the input and the weight first.
        if is_autocast_enabled(x.device.type) or x.dtype != self._last.weight.dtype or x.dim() < 2:
            return self._last(x)
        return self._stand_in(self._last, x)


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return _Linear.apply(x, layer.weight, layer.bias)


def _convolution(layer: Any, x: Tensor) -> Tensor:
    settings = layer.stride, layer.padding, layer.dilation, layer.groups
    return _Convolution.apply(x, layer.weight, layer.bias, *settings)


class _Linear(torch.autograd.Function):
    """``x W' + b``, unevaluated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x.new_empty(()).expand(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = dy.flatten(0, -2)
        dx = dy @ weight if ctx.needs_input_grad[0] else None
        dw = rows.T @ x.flatten(0, -2) if ctx.needs_input_grad[1] else None
        return dx, dw, rows.sum(0) if ctx.needs_input_grad[2] else None


class _Convolution(torch.autograd.Function):
    """A convolution padded with zeros, unevaluated."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.settings, ctx.has_bias = (stride, padding, dilation, groups), bias is not None
        first = x.dim() - len(stride)
        sizes = [
            (x.shape[first + i] + 2 * padding[i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i]
            + 1
            for i in range(len(stride))
        ]
        return x.new_empty(()).expand(*x.shape[: first - 1], weight.shape[0], *sizes)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.settings
        is_one = x.dim() == weight.dim() - 1  # without a batch
        found = torch.ops.aten.convolution_backward(
            dy.unsqueeze(0) if is_one else dy,
            x.unsqueeze(0) if is_one else x,
            weight,
            [weight.shape[0]] if ctx.has_bias else None,
            stride,
            padding,
            dilation,
            False,
            [0] * len(stride),
            groups,
            list(ctx.needs_input_grad[:3]),
        )
        dx, dw, db = found
        return (dx.squeeze(0) if is_one and dx is not None else dx), dw, db, None, None, None, None
