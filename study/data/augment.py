"""Random crops and flips of a whole batch at once, drawn from a generator of the caller's.

Shapes: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Pad each image by `pad` pixels, crop a window of its own size, and flip every other one if `flip`."""

    pad: int
    flip: bool


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The random numbers for N images: top-left corners of shape (N, 2), and who is flipped, (N,)."""

    corners_N2: Tensor
    flipped_N: Tensor

    def __getitem__(self, part: slice) -> Draws:
        return Draws(corners_N2=self.corners_N2[part], flipped_N=self.flipped_N[part])


def draw(augmentation: Augmentation, count: int, generator: torch.Generator) -> Draws:
    """Random numbers for `count` images, on the CPU, so that every device and worker sees the same ones."""
    corners = torch.randint(0, 2 * augmentation.pad + 1, (count, 2), generator=generator)
    flipped = torch.rand(count, generator=generator) < 0.5
    return Draws(corners_N2=corners, flipped_N=flipped & augmentation.flip)


def augment(images_NCHW: Tensor, augmentation: Augmentation, draws: Draws) -> Tensor:
    """Crop and flip normalized images; the border is filled with 0, the mean of a normalized pixel.

    Returns:
        Tensor Shape (N, C, H, W), on the device of `images_NCHW`.
    """
    n, _, h, w = images_NCHW.shape
    device = images_NCHW.device
    padded = torch.nn.functional.pad(images_NCHW, (augmentation.pad,) * 4)
    corners, flipped = draws.corners_N2.to(device), draws.flipped_N.to(device)
    rows_NH = corners[:, :1] + torch.arange(h, device=device)
    across_W = torch.arange(w, device=device)
    columns_NW = corners[:, 1:] + torch.where(flipped[:, None], across_W.flip(0), across_W)
    images = torch.arange(n, device=device)[:, None, None]
    return padded[images, :, rows_NH[:, :, None], columns_NW[:, None, :]].permute(0, 3, 1, 2)
