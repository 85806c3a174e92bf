"""Checkpointing in segments: of L units, the inputs of about √L segments are kept.

Chen, Xu, Zhang and Guestrin, "Training Deep Nets with Sublinear Memory Cost" (2016), section 4.1. A segment's
activations are there while it is differentiated, so √L segments of √L units take the least memory of all
equal divisions where a unit's activations are as large as its input; where they are larger, more segments do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from revmodels.strategies.checkpoint import checkpointed
from revmodels.strategies.strategy import ForwardPass, Strategy, Streams, applied

if TYPE_CHECKING:
    from torch import Tensor


class Segments(Strategy):
    """Units are checkpointed in about √L segments of equal length."""

    name = "segments"
    summary = "Keeps the inputs of about √L segments of L units; one forward pass of the units is repeated."

    def run(self, forward: ForwardPass, *streams: Tensor) -> Streams:
        """Apply the segments in turn, each as one checkpoint; see `Strategy.run`."""
        for segment in segments_of(len(forward.units)):
            streams = repeated(forward, segment, applied, *streams)
        return streams


def segments_of(units: int) -> list[range]:
    """Cut positions 0 to `units` - 1 into √`units` ranges, rounded, whose lengths differ by one at most."""
    count = max(1, round(math.sqrt(units)))
    return [range(units * i // count, units * (i + 1) // count) for i in range(count) if units]


def repeated(forward: ForwardPass, indices: range, run: Callable[..., Streams], *streams: Tensor) -> Streams:
    """Apply neighbouring units as one checkpoint: their input is kept, and they are run again.

    Args:
        forward: the units.
        indices: positions of those to apply.
        run: applies them, given a forward pass, their positions and the streams, all of one shape and dtype.
        streams: what enters the first of them.

    Returns:
        What the last of them returns.
    """
    import torch

    name = f"units {indices[0]} to {indices[-1]}"
    units = [forward.units[i] for i in indices]
    if torch.compiler.is_dynamo_compiling():
        # A graph has no extent to show: exact couplings run outside of it.
        return checkpointed(partial(run, forward, indices), *streams, modules=units, name=name)
    is_repeated = False

    def evaluate(*streams: Tensor) -> Streams:
        # The extent of an exact coupling is about the forward pass, and is closed when this runs again.
        nonlocal is_repeated
        seen, is_repeated = replace(forward, extent=None) if is_repeated else forward, True
        return run(seen, indices, *streams)

    return checkpointed(evaluate, *streams, modules=units, name=name)
