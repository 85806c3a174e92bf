"""i-RevNet: a network that loses nothing of its input (Jacobsen, Smeulders, Oyallon, ICLR 2018).

A RevNet pools between its stages, which cannot be undone, so the input of every stage is stored. An i-RevNet
changes resolution by moving pixels to channels, which can. Its block is half a unit of a RevNet: with S the
rearrangement (the identity inside a stage), two of them are (section 3 of the paper)::

    y1 = S x1 + F(x2)
    y2 = S x2 + G(y1)

S permutes, and a permutation of all the terms of a sum changes nothing. So the streams are carried in the
layout of the last stage from the start, each F and G sees its input in the layout of its own stage, and S
drops out: every unit is a plain `ReversibleBlock`, all stages are one `ReversibleSequence`, and training
stores the last pair alone. The authors' code is invertible but stores all activations.

Shapes: images are (N, C, H, W); in the layout of factor b, one pixel of a stream is b x b of the image's.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revmodels.coupling.block import ReversibleBlock, split
from revmodels.errors import ResolutionError, WidthError
from revmodels.models.architecture import INNER, IRevNetArchitecture
from revmodels.models.layers import UnitOptions, batch_norm, convolution, make_head
from revmodels.models.reversible import ReversibleNetwork
from revmodels.precision import Precision
from revmodels.sequence import ReversibleSequence


def space_to_depth(x: Tensor, factor: int) -> Tensor:
    """Return images, (N, C, H, W), as (N, factor^2 C, H / factor, W / factor), without loss.

    The factor is a power of two, and the channels are ordered as after so many steps of factor 2: to go part
    of the way back leaves the picture as it was part of the way there.

    Raises:
        ResolutionError: `factor` does not divide height and width.

    >>> x = torch.arange(16.0).view(1, 1, 4, 4)
    >>> torch.equal(depth_to_space(space_to_depth(x, 4), 2), space_to_depth(x, 2))
    True
    """
    n, c, h, w = x.shape
    if h % factor or w % factor:
        raise ResolutionError(
            f"{factor} x {factor} pixels become one, so height and width must be multiples of {factor}; "
            f"received {h} x {w}. Pad or resize the images."
        )
    k = factor.bit_length() - 1
    x = x.view(n, c, h // factor, *(2,) * k, w // factor, *(2,) * k)
    order = [0, *(axis for i in range(k) for axis in (3 + i, 4 + k + i)), 1, 2, 3 + k]
    return x.permute(order).reshape(n, factor * factor * c, h // factor, w // factor)


def depth_to_space(x: Tensor, factor: int) -> Tensor:
    """The inverse of `space_to_depth`: (N, factor^2 C, H, W) to (N, C, factor H, factor W)."""
    n, c, h, w = x.shape
    c //= factor * factor
    k = factor.bit_length() - 1
    x = x.view(n, *(2,) * (2 * k), c, h, w)
    rows, columns = range(1, 2 * k, 2), range(2, 2 * k + 1, 2)
    order = [0, 2 * k + 1, 2 * k + 2, *rows, 2 * k + 3, *columns]
    return x.permute(order).reshape(n, c, factor * h, factor * w)


class SpaceToDepth(nn.Module):
    """`space_to_depth` as a layer."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, factor^2 C, H / factor, W / factor)."""
        return space_to_depth(x, self.factor)


class DepthToSpace(SpaceToDepth):
    """`depth_to_space` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, factor^2 C, H, W) to (N, C, factor H, factor W)."""
        return depth_to_space(x, self.factor)


class Lift(nn.Module):
    """The stem, without parameters: zero channels to make room, two streams, pixels to channels.

    Behind a first rearrangement the channels are split. Without one, each stream is the padded image: in the
    authors' code the second is zero, and batch norm of what is zero but for rounding makes rebuilding
    ill-conditioned.

    Args:
        channels_in: channels of the images.
        room: channels with the zeros.
        first: layout in which the streams are made.
        last: layout in which they are carried.
    """

    def __init__(self, channels_in: int, room: int, first: int, last: int) -> None:
        super().__init__()
        self.channels_in = channels_in
        self.padding = room - channels_in
        self.first, self.more = first, last // first

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, 2 C', H / last, W / last), one stream behind the other."""
        x = space_to_depth(F.pad(images, (0, 0, 0, 0, 0, self.padding)), self.first)
        halves = (x, x) if self.first == 1 else split(x)
        return torch.cat([space_to_depth(half, self.more) for half in halves], dim=1)

    def inverse(self, x: Tensor) -> Tensor:
        """The images that `x` was made from."""
        halves = [depth_to_space(half, self.more) for half in split(x)]
        x = halves[0] if self.first == 1 else depth_to_space(torch.cat(halves, dim=1), self.first)
        return x[:, : self.channels_in]


class IRevNet(ReversibleNetwork):
    """An i-RevNet with its memory saving. `features` maps images one to one, and `inverse` maps them back."""

    architecture: IRevNetArchitecture
    stem: nn.Sequential

    def __init__(
        self,
        architecture: IRevNetArchitecture,
        *,
        num_classes: int,
        in_channels: int,
        width: float,
        precision: Precision | None,
        options: UnitOptions,
    ) -> None:
        channels, room = architecture.channels(width), architecture.room(width)
        first, last = architecture.layouts[0], architecture.layouts[-1]
        if room < in_channels:
            raise WidthError(
                f"width: an i-RevNet loses nothing, so it must have room for an image's {in_channels} "
                f"channels; {architecture.name} with the {architecture.stem} stem has room for {room} at "
                f"width {width}. Use at least {architecture.smallest_width(in_channels):g}."
            )
        body = ReversibleSequence(list(_units(architecture, channels, options)))
        super().__init__(
            architecture,
            stem=nn.Sequential(Lift(in_channels, room, first, last)),
            body=body,
            head=make_head(2 * channels[-1], num_classes, options),
            num_classes=num_classes,
            width=width,
            precision=precision,
        )

    def transform(self, stream: Tensor) -> Tensor:
        """Split into the two streams, apply the units, join: the features of the last stage."""
        return torch.cat(self.body(*split(stream)), dim=1)

    def inverse(self, features: Tensor) -> Tensor:
        """The images with these `features` (equation 1 of the paper)."""
        lift = self.stem[0]
        assert isinstance(lift, Lift)
        return lift.inverse(self.body.inverse(features))


def _units(
    architecture: IRevNetArchitecture, channels: tuple[int, ...], options: UnitOptions
) -> Iterator[ReversibleBlock]:
    layouts = architecture.layouts
    stages = zip(pairwise(channels), pairwise(layouts), architecture.units, strict=True)
    is_first = True
    for (c_in, c_out), (b_in, b_out), count in stages:
        for _ in range(count):
            f = _residual(c_in, c_out, b_out // b_in, options, activated=is_first)
            g = _residual(c_out, c_out, 1, options)
            yield ReversibleBlock(
                _in_layout(f, layouts[-1] // b_in, layouts[-1] // b_out),
                _in_layout(g, layouts[-1] // b_out, layouts[-1] // b_out),
            )
            c_in, b_in, is_first = c_out, b_out, False


def _residual(
    channels_in: int, channels_out: int, stride: int, options: UnitOptions, *, activated: bool = False
) -> list[nn.Module]:
    """F of a block: BN, ReLU, 3x3 convolution, three times; right after the stem without the first two."""
    inner = channels_out // INNER
    shapes = [(channels_in, inner, stride), (inner, inner, 1), (inner, channels_out, 1)]
    layers: list[nn.Module] = []
    for i, (c_in, c_out, s) in enumerate(shapes):
        if i or not activated:
            layers += [batch_norm(c_in, options), nn.ReLU(inplace=True)]
        layers.append(convolution(c_in, c_out, 3, s))
    return layers


def _in_layout(layers: list[nn.Module], before: int, after: int) -> nn.Sequential:
    """`layers` between the layout of the streams and that of their stage."""
    head: list[nn.Module] = [DepthToSpace(before)] if before > 1 else []
    tail: list[nn.Module] = [SpaceToDepth(after)] if after > 1 else []
    return nn.Sequential(*head, *layers, *tail)
