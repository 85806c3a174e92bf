"""The shape of a network as plain numbers: stages, channels, depth. Legal depths are decided here.

Depth is counted as the paper does: 2 (stem and classifier) plus the convolutions of the residual functions,
projections not counted. A RevNet unit has two residual functions, a ResNet unit one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from revmodels.errors import DepthError, WidthError
from revmodels.units import EXPANSION


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A RevNet or ResNet of the paper.

    Args:
        name: preset or derived name, such as ``revnet110``.
        family: ``revnet`` or ``resnet``.
        block: ``basic`` or ``bottleneck``.
        stem: ``cifar`` or ``imagenet``.
        units: units of each stage.
        filters: channels of the stem and of each stage, before a bottleneck's expansion.
    """

    name: str
    family: str
    block: str
    stem: str
    units: tuple[int, ...]
    filters: tuple[int, ...]

    @property
    def convolutions_per_unit(self) -> int:
        """2 or 3 in a residual function, and a RevNet unit has two of them."""
        return (3 if self.block == "bottleneck" else 2) * (2 if self.family == "revnet" else 1)

    @property
    def depth(self) -> int:
        """Weighted layers: 2 + the residual functions' convolutions."""
        return 2 + self.convolutions_per_unit * sum(self.units)

    @property
    def has_equal_stages(self) -> bool:
        """True of the three-stage CIFAR designs."""
        return len(self.units) == 3

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each stage's first unit."""
        return (1,) + (2,) * (len(self.units) - 1)

    def channels(self, width: float) -> tuple[int, ...]:
        """Channels of the stem and of each stage's output at a width multiplier, all even.

        Raises:
            WidthError: `width` is not a positive finite number.
        """
        if not (isinstance(width, int | float) and math.isfinite(width) and width > 0):
            raise WidthError(f"width: a positive multiplier of the preset's channels; received {width!r}.")
        scaled = [max(2, 2 * round(c * width / 2)) for c in self.filters]
        factor = EXPANSION if self.block == "bottleneck" else 1
        return (scaled[0], *(factor * c for c in scaled[1:]))

    def with_depth(self, depth: int) -> Architecture:
        """The same design at another depth.

        CIFAR networks have equally many units in each stage; ImageNet networks change their third stage, as
        the paper's do.

        Raises:
            DepthError: no network of this design has that depth; the message names the nearest that exist.
        """
        per_unit = self.convolutions_per_unit
        if self.has_equal_stages:
            step, smallest = per_unit * len(self.units), 2 + per_unit * len(self.units)
        else:
            step, smallest = per_unit, 2 + per_unit * (sum(self.units) - self.units[2] + 1)
        if (
            isinstance(depth, bool)
            or not isinstance(depth, int)
            or depth < smallest
            or (depth - smallest) % step
        ):
            raise DepthError(self._depth_message(depth, smallest, step))
        n = (depth - smallest) // step + 1
        units = (n,) * 3 if self.has_equal_stages else (*self.units[:2], n, *self.units[3:])
        return replace(self, name=f"{self.family}{depth}", units=units)

    def with_stem(self, stem: str) -> Architecture:
        """The same units behind another stem, for images of another size."""
        return replace(self, stem=stem)

    def _depth_message(self, depth: object, smallest: int, step: int) -> str:
        rule = (
            f"a {self.block} {self.family} like {self.name} has depth {smallest} + {step}k, k = 0, 1, 2, ..."
        )
        if isinstance(depth, bool) or not isinstance(depth, int):
            return f"depth: {rule} received {depth!r}."
        below = max(smallest, smallest + (depth - smallest) // step * step)
        near = f"{below} and {below + step}" if depth >= smallest else f"{smallest}"
        return f"depth: {rule} received {depth}; the nearest legal: {near}."


def _cifar(name: str, family: str, block: str, n: int, filters: tuple[int, ...]) -> Architecture:
    return Architecture(name=name, family=family, block=block, stem="cifar", units=(n, n, n), filters=filters)


def _imagenet(name: str, family: str, units: tuple[int, ...], filters: tuple[int, ...]) -> Architecture:
    return Architecture(
        name=name, family=family, block="bottleneck", stem="imagenet", units=units, filters=filters
    )


_NARROW = (16, 16, 32, 64)
_REV = (32, 32, 64, 128)
_RES_IMAGENET = (64, 64, 128, 256, 512)
_REV_IMAGENET = (128, 128, 256, 512, 832)

PRESETS: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        _cifar("revnet38", "revnet", "basic", 3, (32, 32, 64, 112)),
        _cifar("revnet110", "revnet", "basic", 9, _REV),
        _cifar("revnet164", "revnet", "bottleneck", 9, _REV),
        _imagenet("revnet56", "revnet", (2, 2, 3, 2), _REV_IMAGENET),
        _imagenet("revnet104", "revnet", (2, 2, 11, 2), _REV_IMAGENET),
        _cifar("resnet32", "resnet", "basic", 5, _NARROW),
        _cifar("resnet110", "resnet", "basic", 18, _NARROW),
        _cifar("resnet164", "resnet", "bottleneck", 18, _NARROW),
        _imagenet("resnet50", "resnet", (3, 4, 6, 3), _RES_IMAGENET),
        _imagenet("resnet101", "resnet", (3, 4, 23, 3), _RES_IMAGENET),
        _imagenet("resnet152", "resnet", (3, 8, 36, 3), _RES_IMAGENET),
    )
}
"""The networks of the paper and of its code, by name."""
