"""Turn a residual network of your own into one that rebuilds its activations, and check it.

Run: ``python examples/wrap_your_network.py``
"""

import torch
from torch import nn

from revmodels import ReversibleBlock, ReversibleSequence
from revmodels.testing.check import check_reversible


class Branch(nn.Sequential):
    """The residual branch of your network: any module that keeps the shape of its input."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.Dropout(0.1)
        )


def wrap(channels: int, blocks: int) -> nn.Module:
    """Before: ``x = x + branch(x)`` on all channels. After: two branches a block, each on half of them."""
    half = channels // 2
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        ReversibleSequence([ReversibleBlock(Branch(half), Branch(half)) for _ in range(blocks)]),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 10),
    )


if __name__ == "__main__":
    print(check_reversible(wrap(channels=16, blocks=8), torch.randn(4, 3, 16, 16)))
