"""Storing: what ordinary backpropagation does, and the naive twin of every other strategy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from revmodels.strategies.strategy import ForwardPass, Strategy, Streams, applied

if TYPE_CHECKING:
    from torch import Tensor


class Store(Strategy):
    """Every activation that a backward pass reads is kept from the forward pass."""

    name = "store"
    summary = "Keeps every activation; nothing is computed twice."
    saves_memory = False
    recomputes = False

    def run(self, forward: ForwardPass, *streams: Tensor) -> Streams:
        """Apply the units in turn; see `Strategy.run`."""
        return applied(forward, range(len(forward.units)), *streams)
