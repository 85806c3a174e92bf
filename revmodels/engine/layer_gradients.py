"""Convolutions and linear layers with their own gradients and without their own product.

The graph of such a layer holds its input and its weight, not its value. So where the value is known, or where
nobody needs it, the product is left out, and the gradients are the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from revmodels.torch_internals import FakeTensor, is_autocast_enabled, own_parameters

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
PLAIN_TENSORS = (Tensor, nn.Parameter, FakeTensor)
"""Classes of tensors whose products are what their shapes say."""


def has_gradients(layer: nn.Module) -> bool:
    """Whether `gradients_of` knows this layer.

    Args:
        layer: any.

    Returns:
        True for a linear layer or a convolution padded with zeros, of PyTorch's own class, with a weight of
        real numbers in a plain tensor.
    """
    weight = own_parameters(layer).get("weight")
    if weight is None or type(weight) not in PLAIN_TENSORS or weight.is_complex():
        return False
    if type(layer) in CONVOLUTIONS:
        return isinstance(layer.padding, tuple) and layer.padding_mode == "zeros"
    return type(layer) is nn.Linear


def operations(layer: nn.Module, out: Tensor) -> int:
    """Operations of the product by which such a layer made `out`, two for each multiply-add."""
    weight: Any = layer.weight
    return 2 * out.numel() * weight[0].numel()


def gradients_of(layer: Any, x: Tensor, value: Tensor | None) -> Tensor | None:
    """The result of a layer on `x`, with its gradients.

    Args:
        layer: one that `has_gradients`.
        x: its input, of two dimensions at least.
        value: what it returned for the same input; None if nobody needs it, which autocast does not allow.

    Returns:
        `value`, in the same memory, as the end of the layer's graph; without one, a tensor of its shape with
        one number in memory. None if the value has not the shape or dtype that the layer gives `x`.
    """
    weight, bias = layer.weight, layer.bias
    dtype = _autocast_dtype(x)
    if dtype is not None:
        # What autocast does in front of a product: each is converted, and its gradient back.
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    settings = None
    if type(layer) is nn.Linear:
        shape = (*x.shape[:-1], weight.shape[0])
    else:
        settings = layer.stride, layer.padding, layer.dilation, layer.groups
        shape = _convolved(x, weight, *settings)
    if value is None:
        value = x.new_empty(()).expand(shape)
    elif value.shape != torch.Size(shape) or value.dtype != x.dtype or x.dtype != weight.dtype:
        return None
    # In a list, it is no input of the function that could get a gradient.
    if settings is None:
        return _Linear.apply([value], x, weight, bias)
    return _Convolution.apply([value], x, weight, bias, settings)


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast, where it is in force, converts the operands of a product to."""
    device = x.device.type
    if x.dtype == torch.float64 or not is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def _convolved(
    x: Tensor,
    weight: Tensor,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    _: int,
) -> tuple[int, ...]:
    first = x.dim() - len(stride)
    sizes = [
        (x.shape[first + i] + 2 * padding[i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i] + 1
        for i in range(len(stride))
    ]
    return (*x.shape[: first - 1], weight.shape[0], *sizes)


def _save(ctx: Any, x: Tensor, weight: Tensor) -> None:
    # As PyTorch does: the input for the gradient of the weight, and the weight for that of the input.
    _, needs_x, needs_weight, *_ = ctx.needs_input_grad
    ctx.save_for_backward(x if needs_weight else None, weight if needs_x else None)


class _Linear(torch.autograd.Function):
    """``x W' + b``, whose value is given."""

    @staticmethod
    def forward(ctx: Any, value: list[Tensor], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        _save(ctx, x, weight)
        return value[0].detach()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = dy.flatten(0, -2)
        dx = None if weight is None else dy @ weight
        dw = None if x is None else rows.T @ x.flatten(0, -2)
        return None, dx, dw, rows.sum(0) if ctx.needs_input_grad[3] else None


class _Convolution(torch.autograd.Function):
    """A convolution padded with zeros, whose value is given."""

    @staticmethod
    def forward(
        ctx: Any, value: list[Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, settings: tuple
    ) -> Tensor:
        ctx.save_for_backward(x, weight)  # the kernel asks for both
        ctx.settings, ctx.has_bias = settings, bias is not None
        return value[0].detach()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.settings
        is_one = x.dim() == weight.dim() - 1  # without a batch
        dx, dw, db = torch.ops.aten.convolution_backward(
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
            list(ctx.needs_input_grad[1:4]),
        )
        return None, dx.squeeze(0) if is_one and dx is not None else dx, dw, db, None
