"""The shape of a network as plain numbers: stages, channels, depth. Legal depths are decided here.

Depth is counted as the paper does: 2 (stem and classifier) plus the convolutions of the residual functions,
projections not counted. A RevNet unit has two residual functions, a ResNet unit one. The depth of a vision
transformer is its number of blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from revmodels.errors import DepthError, ResolutionError, WidthError

EXPANSION = 4
"""A bottleneck unit's output has this many times the channels of its 3x3 convolution."""

INNER = 4
"""The inner convolutions of an i-RevNet have this many times fewer channels than its streams."""

HEAD_CHANNELS = 64
"""Channels of an attention head, at every width."""

PATCHES = {"cifar": (4, 32), "imagenet": (16, 224)}
"""Of a vision transformer with each stem: pixels along a side of a patch, and of the images it is for."""


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
    def is_reversible(self) -> bool:
        """Whether its units have two coupled streams, so that there is something to invert."""
        return self.family not in ("resnet", "gpt")

    @property
    def has_equal_stages(self) -> bool:
        """True of the three-stage CIFAR designs."""
        return len(self.units) == 3

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each stage's first unit."""
        return (1,) + (2,) * (len(self.units) - 1)

    def channels(self, width: float) -> tuple[int, ...]:
        """Return channels of the stem and of each stage's output at a width multiplier, all even.

        Raises:
            WidthError: `width` is not a positive finite number.
        """
        check_width(width)
        scaled = [max(2, 2 * round(c * width / 2)) for c in self.filters]
        factor = EXPANSION if self.block == "bottleneck" else 1
        return (scaled[0], *(factor * c for c in scaled[1:]))

    @property
    def depths(self) -> tuple[int, int]:
        """The smallest depth of the design, and the distance from each to the next."""
        per_unit = self.convolutions_per_unit
        if self.has_equal_stages:
            return 2 + per_unit * len(self.units), per_unit * len(self.units)
        return 2 + per_unit * (sum(self.units) - self.units[2] + 1), per_unit

    def with_depth(self, depth: int) -> Architecture:
        """Return the same design at another depth.

        CIFAR networks have equally many units in each stage; ImageNet networks change their third stage, as
        the paper's do.

        Raises:
            DepthError: no network of this design has that depth; the message names the nearest that exist.
        """
        smallest, step = self.depths
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


@dataclass(frozen=True, kw_only=True)
class IRevNetArchitecture(Architecture):
    """An i-RevNet: `units` are pairs of the paper's blocks, `filters` the channels of a stream in each stage.

    With the ``cifar`` stem both streams start as the image, padded with zero channels. The ``imagenet`` stem
    makes one pixel of 2 x 2 and splits the channels, and the first unit makes one of 2 x 2 again.
    """

    @property
    def convolutions_per_unit(self) -> int:
        """Three in each of the two blocks."""
        return 6

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each stage's first unit."""
        return (1 if self.stem == "cifar" else 2,) + (2,) * (len(self.units) - 1)

    @property
    def layouts(self) -> tuple[int, ...]:
        """Image pixels along a side of one pixel: where the streams start, then in each stage."""
        factors = [1 if self.stem == "cifar" else 2]
        for stride in self.strides:
            factors.append(factors[-1] * stride)
        return tuple(factors)

    def channels(self, width: float) -> tuple[int, ...]:
        """Return channels of one stream at the start and in each stage; channels times pixels is constant.

        Raises:
            WidthError: `width` is not a positive finite number.
        """
        check_width(width)
        area = self.layouts[1] ** 2
        step = max(INNER, area // 2)
        first = max(1, round(self.filters[0] * width / step)) * step
        return tuple(first * b * b // area for b in self.layouts)

    def room(self, width: float) -> int:
        """Channels an image can have."""
        channels = self.channels(width)[0]
        return channels if self.stem == "cifar" else 2 * channels // self.layouts[0] ** 2

    def smallest_width(self, channels: int) -> float:
        """The width at which there is room for images of that many channels."""
        return channels * (1 if self.stem == "cifar" else self.layouts[1] ** 2 / 2) / self.filters[0]


@dataclass(frozen=True, kw_only=True)
class RevViTArchitecture(Architecture):
    """A Rev-ViT: one stage, whose only entry in `units` counts blocks and in `filters` gives d."""

    patch: int | None = None

    @property
    def depth(self) -> int:
        """Blocks, as vision transformers are counted."""
        return self.units[0]

    @property
    def depths(self) -> tuple[int, int]:
        """Any depth from 1."""
        return 1, 1

    @property
    def patch_size(self) -> int:
        """Pixels along a side of a patch."""
        return self.patch or PATCHES[self.stem][0]

    @property
    def grid(self) -> int:
        """Patches along a side of the images that the stem is made for."""
        return max(1, PATCHES[self.stem][1] // self.patch_size)

    def channels(self, width: float) -> tuple[int, ...]:
        """Return channels of a stream before and after the blocks, in whole heads of 64 channels.

        Raises:
            WidthError: `width` is not a positive finite number.
        """
        check_width(width)
        d = HEAD_CHANNELS * max(1, round(self.filters[0] * width / HEAD_CHANNELS))
        return d, d

    def with_depth(self, depth: int) -> RevViTArchitecture:
        """Return the same design with another number of blocks.

        Raises:
            DepthError: `depth` is not a whole number of at least 1.
        """
        if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
            raise DepthError(
                f"depth: {self.name} has any depth from 1; received {depth!r}; the nearest legal: 1."
            )
        size, _, _ = self.name.partition("-")
        return replace(self, name=self.name if depth == self.depth else f"{size}-{depth}", units=(depth,))

    def with_patch(self, patch: int) -> RevViTArchitecture:
        """Return the same design over patches of another size.

        Raises:
            ResolutionError: `patch` is not a whole number of at least 1.
        """
        if isinstance(patch, bool) or not isinstance(patch, int) or patch < 1:
            raise ResolutionError(f"patch: a whole number of pixels of at least 1; received {patch!r}.")
        return replace(self, patch=patch)


def check_width(width: object) -> None:
    """See that `width` is a multiplier.

    Raises:
        WidthError: it is not a positive finite number.
    """
    if not (isinstance(width, int | float) and math.isfinite(width) and width > 0):
        raise WidthError(f"width: a positive multiplier of the preset's channels; received {width!r}.")
