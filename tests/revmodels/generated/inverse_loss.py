"""What the naive inverses of a case's units lose to rounding, whatever the engine does.

A bilinear layer may make streams of 1e8 out of streams of 1. Their difference is the input again, and half of
its digits are gone: no reversible network rebuilds it better. `block.inverse` is that difference, written
plainly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.revmodels.generated.case import Case
from tests.revmodels.generated.program import Program

Pair = tuple[Tensor, Tensor]


def inverse_loss(case: Case) -> float:
    """Rebuild the inputs of the units of the first call, one after the other, from the last output.

    Returns:
        The largest relative error of a stream; 0 where nothing can be said, as a unit has no inverse, or does
        not answer its input with the very same output when it is called again.
    """
    program = Program(case, stored=True)
    units = list(program.network.body.blocks)
    passes: list[tuple[Any, Pair, Pair]] = []

    def see(unit: Any, inputs: Any, output: Any) -> None:
        passes.append((unit, _pair(inputs), _pair(output)))

    handles = [unit.register_forward_hook(see) for unit in dict.fromkeys(units)]
    program.run()
    for handle in handles:
        handle.remove()
    try:
        with torch.no_grad():
            return _loss(passes[: len(units)])
    except Exception:
        return 0.0


def _loss(passes: list[tuple[Any, Pair, Pair]]) -> float:
    largest, rebuilt = 0.0, None
    for unit, inputs, output in reversed(passes):
        again = _pair(unit(tuple(x.clone() for x in inputs)))
        if not all(torch.equal(a, b) for a, b in zip(again, output, strict=True)):
            return 0.0
        if not hasattr(unit, "inverse"):
            rebuilt = None  # a stage entry keeps its input
            continue
        rebuilt = _pair(unit.inverse(rebuilt or output))
        for found, exact in zip(rebuilt, inputs, strict=True):
            largest = max(largest, ((found - exact).norm() / exact.norm()).item())
    return largest


def _pair(streams: Any) -> Pair:
    first, second = streams
    return first.detach().clone(), second.detach().clone()
