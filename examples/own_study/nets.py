"""A network of one's own: two streams that read each other by cross-attention, with everything reversible.

Shapes: B examples, M features, D channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import revmodels


class Reading(nn.Module):
    """What learned queries find in a stream: (B, M, D) to (B, M, D)."""

    def __init__(self, features: int, channels: int, heads: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(features, channels))
        self.norm = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.output = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )

    def forward(self, stream_BMD: Tensor) -> Tensor:
        """Cross-attention of the queries to the stream, and a perceptron."""
        read_BMD, queries_BMD = self.norm(stream_BMD), self.queries.expand(len(stream_BMD), -1, -1)
        found_BMD, _ = self.attention(queries_BMD, read_BMD, read_BMD, need_weights=False)
        return self.output(found_BMD)


class Reader(nn.Module):
    """Embeds each feature, lets two streams read each other, and classifies what they hold."""

    def __init__(self, features: int, classes: int, *, depth: int, channels: int, heads: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.randn(features, channels))
        self.places = nn.Parameter(torch.randn(features, channels))
        self.body = revmodels.ReversibleSequence(
            [
                revmodels.ReversibleBlock(
                    Reading(features, channels, heads), Reading(features, channels, heads)
                )
                for _ in range(depth)
            ]
        )
        self.head = nn.Linear(channels, classes)

    def forward(self, inputs_BM: Tensor) -> Tensor:
        """Logits of shape (B, classes)."""
        stream_BMD = inputs_BM[..., None] * self.values + self.places
        first_BMD, second_BMD = self.body(stream_BMD, stream_BMD)
        return self.head((first_BMD + second_BMD).mean(1))


def build(task: Any, *, depth: int = 4, channels: int = 32, heads: int = 4) -> nn.Module:
    """Build the network. `task` tells how many features an example has, and how many classes there are."""
    return Reader(task.input_shape[0], task.num_classes, depth=depth, channels=channels, heads=heads)
