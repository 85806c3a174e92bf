"""What a compiler must leave alone, in a file of its own: its decorator takes a second to import.

Import this file where something is being compiled, or where the compiler has been imported already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from revmodels.coupling.context import Context, Pair
from revmodels.engine.recomputed_input import Origin


@torch.compiler.disable(
    reason="exact coupling needs one kernel in forward pass and replay; run it uncompiled"
)
def run_on_grid(
    run: Callable[[Tensor, Tensor, int, Origin | None, Context], Pair],
    x1: Tensor,
    x2: Tensor,
    bits: int,
    origin: Origin | None,
    given: Context,
) -> Pair:
    """Run units of exact coupling, with everything below them, outside any compiled graph.

    Args:
        run: applies the units to what follows.
        x1: the first stream, of any shape and a floating dtype.
        x2: the second, of the same shape and dtype.
        bits: binary places of the grid.
        origin: makes the two streams again; see `revmodels.sequence.ReversibleSequence.forward`.
        given: what every F and G is handed beside its stream.

    Returns:
        The two streams that `run` returns, of the input's dtype and, but for stage entries, shape.
    """
    return run(x1, x2, bits, origin, given)


@torch.compiler.disable(
    reason="a unit has hooks, or the network an observer, and a compiled reversible network calls neither; "
    "run it uncompiled, or take them off"
)
def run_watched(run: Callable[..., Pair], *arguments: Any, **options: Any) -> Pair:
    """Run units that somebody watches outside any compiled graph.

    Args:
        run: applies the units.
        arguments: what it is called with.
        options: likewise, by name.

    Returns:
        The two streams that `run` returns.
    """
    return run(*arguments, **options)
