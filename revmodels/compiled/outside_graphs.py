"""What a compiler must leave alone, in a file of its own: its decorator takes a second to import.

Import this file where something is being compiled, or where the compiler has been imported already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from revmodels.coupling.block import Pair
from revmodels.engine.recomputed_input import Origin

if TYPE_CHECKING:
    from revmodels.sequence import ReversibleSequence


@torch.compiler.disable(
    reason="exact coupling needs one kernel in forward pass and replay; run it uncompiled"
)
def run_on_grid(
    sequence: ReversibleSequence, x1: Tensor, x2: Tensor, bits: int, origin: Origin | None
) -> Pair:
    """Run a sequence of exact couplings, with everything below it, outside any compiled graph.

    Args:
        sequence: the sequence, all of whose units have an exact coupling.
        x1: the first stream, of any shape and a floating dtype.
        x2: the second, of the same shape and dtype.
        bits: binary places of the grid.
        origin: makes the two streams again; see `ReversibleSequence.forward`.

    Returns:
        The two streams that leave the sequence, of the input's dtype and, but for stage entries, shape.

    Raises:
        RangeError: a stream left the range of the grid, and the precision policy raises on overflow.
    """
    return sequence.run_on_grid(x1, x2, bits, origin)
