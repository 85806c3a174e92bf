"""From an encoded image to pixels, as they are or varied at random by the recipe of ImageNet.

Shapes: C channels, H rows, W columns.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from study.errors import DataError

AREA, RATIO = (0.05, 1.0), (3 / 4, 4 / 3)
"""The share of an image that is cut out, and its width by its height (Inception; Szegedy et al. 2015)."""

BRIGHTNESS, CONTRAST, SATURATION, HUE = 32 / 255, 0.5, 0.5, 0.2
"""The color distortion of Inception, as the paper's training used it."""

MIDDLE = 0.875
"""The share of the shorter side that is evaluated."""


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """Decodes images to one size and number of channels.

    Attributes:
        size: H = W.
        channels: 1 for gray, 3 for color.
        recipe: ``crop``: what varies training images comes later, in a batch (`study.data.augment`); or
            ``imagenet``: each is varied as it is decoded, at its full size.
    """

    size: int
    channels: int
    recipe: str = "crop"

    def __call__(self, content: bytes, where: str, seed: int | None = None) -> Tensor:
        """Decode an image.

        Args:
            content: The encoded image.
            where: Its file and row, for messages.
            seed: Of what varies it. None evaluates: the middle of the image.

        Returns:
            uint8 of shape (C, size, size).

        Raises:
            DataError: The content is no image, or has colors among images that are gray.
        """
        if self.recipe == "imagenet":
            image = pixels_of(open_image(content, where))
            image = self._vary(image, seed) if seed is not None else self._evaluation(image)
        else:
            image = decode(content, self.size, where)
        if image.shape[0] == self.channels:
            return image
        if image.shape[0] == 1:  # a single gray image among colored ones is a matter of encoding
            return image.expand(self.channels, -1, -1).contiguous()
        raise DataError(
            "data.name",
            value=f"{image.shape[0]} channels",
            rule=f"{where} must be gray as the first images are",
            remedy="convert it, or write all images in color",
        )

    def _vary(self, image: Tensor, seed: int) -> Tensor:
        # The transforms draw from the global generator of this process, whose state is put back.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self._training(image if image.shape[0] == self.channels else image.expand(3, -1, -1))

    @cached_property
    def _training(self) -> Callable[[Tensor], Tensor]:
        from torchvision.transforms import v2

        steps: list[Any] = [
            v2.RandomResizedCrop(self.size, scale=AREA, ratio=RATIO, antialias=True),
            v2.RandomHorizontalFlip(),
        ]
        if self.channels == 3:
            color = {"brightness": BRIGHTNESS, "contrast": CONTRAST, "saturation": SATURATION, "hue": HUE}
            steps.append(v2.ColorJitter(**color))
        return v2.Compose(steps)

    @cached_property
    def _evaluation(self) -> Callable[[Tensor], Tensor]:
        from torchvision.transforms import v2

        return v2.Compose([v2.Resize(round(self.size / MIDDLE), antialias=True), v2.CenterCrop(self.size)])


def decode(content: bytes | None, size: int | None, where: str) -> Tensor:
    """Return an encoded image as uint8 of shape (C, H, W), C = 1 for gray and 3 for color.

    With a `size`, the shorter side is scaled to it and the middle is cut out, so that H = W = size.

    Raises:
        DataError: The content is no image.
    """
    from PIL import Image, ImageOps

    image = open_image(content, where)
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return pixels_of(image)


def open_image(content: bytes | None, where: str) -> Any:
    """Return an encoded image as Pillow's, gray or in color.

    Raises:
        DataError: The content is no image, or not a whole one.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content or b"")) as image:
            return image.convert("L" if image.mode in ("1", "L") else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            "data.name",
            value=str(error),
            rule=f"{where} must be an image that decodes",
            remedy="replace it, or take it out",
        ) from None


def pixels_of(image: Any) -> Tensor:
    """uint8 of shape (C, H, W), from Pillow's image."""
    import numpy as np

    array = torch.from_numpy(np.array(image))
    return array[None] if array.dim() == 2 else array.permute(2, 0, 1)
