"""Recursive checkpointing: the strategy between storing and reversing that needs no inverse.

Chen, Xu, Zhang and Guestrin, "Training Deep Nets with Sublinear Memory Cost" (2016), section 4.3. A row of
units is cut in two. The first half is a checkpoint: it keeps its input, and is run again in the backward
pass by the same rule. The second half goes on by the rule at once: the backward pass needs it first.
For L units that keeps O(log L) inputs and runs O(L log L) units again; reversing keeps O(1) and runs L again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from revmodels.strategies.segments import repeated
from revmodels.strategies.strategy import ForwardPass, Strategy, Streams, applied

if TYPE_CHECKING:
    from torch import Tensor


class Recursive(Strategy):
    """Units are checkpointed in halves of halves: O(log L) inputs are kept of L units."""

    name = "recursive"
    summary = "Keeps O(log L) inputs of L units; O(L log L) units are done again."

    def run(self, forward: ForwardPass, *streams: Tensor) -> Streams:
        """Apply the units in turn, the first half of every row as one checkpoint; see `Strategy.run`."""
        return _run(forward, range(len(forward.units)), *streams)


def _run(forward: ForwardPass, indices: range, *streams: Tensor) -> Streams:
    if len(indices) <= 1:
        return applied(forward, indices, *streams)
    first, rest = indices[: len(indices) // 2], indices[len(indices) // 2 :]
    streams = repeated(forward, first, _run, *streams)
    return _run(forward, rest, *streams)
