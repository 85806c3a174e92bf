"""Pre-activation residual networks: the stored twins that the paper compares its RevNets with."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from revmodels.models.architecture import Architecture
from revmodels.models.layers import UnitOptions, entry_shortcut, make_head, make_stem, residual_function
from revmodels.models.stored import StoredNetwork
from revmodels.precision import Precision


class ResidualUnit(nn.Module):
    """``y = P(x) + F(x)``, with the identity for P except in the first unit of a stage."""

    def __init__(self, f: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.f = f
        self.p = shortcut
        self.precision = Precision()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W'), in the dtype of `x`."""
        r = self.precision.run(self.f, x).to(x.dtype)
        if self.p is None:
            return x + r
        has_parameters = next(self.p.parameters(), None) is not None
        shortcut = self.precision.run(self.p, x).to(x.dtype) if has_parameters else self.p(x)
        return shortcut + r


class ResNet(StoredNetwork):
    """A ResNet with the units of the paper's code (resnet-32, -110, -164; -50, -101, -152)."""

    def __init__(
        self,
        architecture: Architecture,
        *,
        num_classes: int,
        in_channels: int,
        width: float,
        precision: Precision | None,
        options: UnitOptions,
    ) -> None:
        channels = architecture.channels(width)
        super().__init__(
            architecture,
            stem=make_stem(architecture.stem, in_channels, channels[0], options),
            body=nn.ModuleList(_units(architecture, channels, options)),
            head=make_head(channels[-1], num_classes, options),
            num_classes=num_classes,
            width=width,
            precision=precision,
        )


def _units(architecture: Architecture, channels: tuple[int, ...], options: UnitOptions) -> list[ResidualUnit]:
    units: list[ResidualUnit] = []
    stages = zip(pairwise(channels), architecture.units, architecture.strides, strict=True)
    for (c_in, c_out), count, stride in stages:
        # Only a projection, or a change of shape, needs a shortcut of its own.
        changes = options.bottleneck or c_in != c_out or stride > 1
        units.append(
            ResidualUnit(
                residual_function(c_in, c_out, stride, options, activated=not units),
                entry_shortcut(c_in, c_out, stride, options) if changes else None,
            )
        )
        units += [ResidualUnit(residual_function(c_out, c_out, 1, options)) for _ in range(count - 1)]
    return units
