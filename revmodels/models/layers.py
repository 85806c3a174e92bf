"""Building blocks shared by RevNets and ResNets: residual functions, shortcuts, stems and heads.

All are pre-activation (BN, ReLU, convolution), as in the code of Gomez et al. 2017. Convolutions have no bias
and are initialised from a truncated normal with standard deviation sqrt(2 / (k * k * channels_out)); the
classifier uniformly within sqrt(3 / features_in). Shapes: images are (batch, channels, height, width).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revmodels.models.architecture import EXPANSION

BATCH_NORM_EPS = 1e-3


@dataclass(frozen=True, kw_only=True)
class UnitOptions:
    """What every unit of a network has in common.

    Args:
        bottleneck: three convolutions (1x1, 3x3, 1x1) instead of two 3x3.
        batch_norm_momentum: PyTorch's convention, so 0.01 is the TensorFlow decay 0.99 of the paper's code.
    """

    bottleneck: bool
    batch_norm_momentum: float = 0.1


def batch_norm(channels: int, options: UnitOptions) -> nn.BatchNorm2d:
    """Batch norm with the epsilon of the paper's code."""
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS, momentum=options.batch_norm_momentum)


def convolution(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A `kernel` x `kernel` convolution without bias that keeps the resolution at stride 1."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)
    truncated_normal_(conv.weight, std=math.sqrt(2.0 / (kernel * kernel * channels_out)))
    return conv


@torch.no_grad()
def truncated_normal_(weight: Tensor, *, std: float) -> Tensor:
    """Fill `weight` from a normal of standard deviation `std`, cut off at two of them, through its quantiles.

    `nn.init.trunc_normal_` rejects and redraws, which a fake tensor cannot do: it has no values to reject.

    Returns:
        `weight` itself.
    """
    tail = math.erf(math.sqrt(2.0))
    return weight.uniform_(-tail, tail).erfinv_().mul_(math.sqrt(2.0) * std)


def residual_function(
    channels_in: int, channels_out: int, stride: int, options: UnitOptions, *, activated: bool = False
) -> nn.Sequential:
    """Return F or G of a unit: two 3x3 convolutions, or a bottleneck of three; the stride is in the first.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the result.
        stride: reduces height and width.
        options: the network's unit options.
        activated: the input has already been through BN and ReLU (first unit after the stem).
    """
    if options.bottleneck:
        inner = channels_out // EXPANSION
        shapes = [(channels_in, inner, 1), (inner, inner, 3), (inner, channels_out, 1)]
    else:
        shapes = [(channels_in, channels_out, 3), (channels_out, channels_out, 3)]
    layers: list[nn.Module] = []
    for i, (c_in, c_out, kernel) in enumerate(shapes):
        if i or not activated:
            layers += [batch_norm(c_in, options), nn.ReLU(inplace=True)]
        layers.append(convolution(c_in, c_out, kernel, stride if i == 0 else 1))
    return nn.Sequential(*layers)


class PoolAndPad(nn.Module):
    """Parameter-free shortcut of basic units: average pooling, then zero channels on both sides."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        missing = channels_out - channels_in
        self.stride = stride
        self.padding = (missing // 2, missing - missing // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride)
        return F.pad(x, (0, 0, 0, 0, *self.padding)) if any(self.padding) else x


def entry_shortcut(channels_in: int, channels_out: int, stride: int, options: UnitOptions) -> nn.Module:
    """The shortcut of a stage's first unit: pool and pad, or in bottleneck networks a 1x1 projection."""
    if options.bottleneck:
        return convolution(channels_in, channels_out, 1, stride)
    return PoolAndPad(channels_in, channels_out, stride)


def make_stem(name: str, channels_in: int, channels_out: int, options: UnitOptions) -> nn.Sequential:
    """Return the layers before the first unit.

    Args:
        name: ``cifar`` is a 3x3 convolution; ``imagenet`` a 7x7 of stride 2 followed by 3x3 max-pooling of
            stride 2. Both have BN and ReLU after the convolution.
        channels_in: channels of the image.
        channels_out: channels of the first unit.
        options: the network's unit options.
    """
    after: list[nn.Module] = [batch_norm(channels_out, options), nn.ReLU(inplace=True)]
    if name == "cifar":
        return nn.Sequential(convolution(channels_in, channels_out, 3), *after)
    return nn.Sequential(convolution(channels_in, channels_out, 7, 2), *after, nn.MaxPool2d(3, 2, padding=1))


def make_head(channels: int, num_classes: int, options: UnitOptions) -> nn.Sequential:
    """BN, ReLU, global average pooling and a linear classifier."""
    classifier = nn.Linear(channels, num_classes)
    bound = math.sqrt(3.0 / channels)
    nn.init.uniform_(classifier.weight, -bound, bound)
    nn.init.zeros_(classifier.bias)
    return nn.Sequential(
        batch_norm(channels, options),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        classifier,
    )
