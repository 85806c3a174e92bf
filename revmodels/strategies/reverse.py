"""Reversing: the backward pass rebuilds the input of every unit from its output (Gomez et al. 2017).

`revmodels.engine.eager` does it, and under ``torch.compile`` `revmodels.compiled.network`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from revmodels.strategies.strategy import ForwardPass, Strategy, Streams

if TYPE_CHECKING:
    from torch import Tensor


class Reverse(Strategy):
    """Only the last pair is kept, and the input of stage entries and anchors."""

    name = "reverse"
    summary = "Keeps the last pair and the input of stage entries; one forward pass of the units is repeated."
    inverts = True
    needs_inverse = True
    settings: ClassVar = {"anchor_every": None}

    def modes(self, forward: ForwardPass) -> tuple[str, ...]:
        """``checkpoint`` for units that keep their input, ``reverse`` for all others."""
        return tuple("checkpoint" if keeps else self.name for keeps in forward.keeps_input)

    def recomputes_stem(self, modes: Sequence[str]) -> bool:
        """True: the first unit is a stage entry or is inverted, and what made its input is known."""
        return True

    def run(self, forward: ForwardPass, *streams: Tensor) -> Streams:
        """Apply the units in turn, storing no activation; see `Strategy.run`."""
        return rebuilt(forward, range(len(forward.units)), forward.keeps_input, *streams)


def rebuilt(
    forward: ForwardPass,
    indices: range,
    keeps: Sequence[bool],
    *streams: Tensor,
    layers: Sequence[Sequence[str]] = (),
) -> Streams:
    """Apply neighbouring units so that the backward pass rebuilds what it reads.

    Args:
        forward: the units.
        indices: positions of those to apply.
        keeps: of each of those, whether it keeps its input.
        streams: the two streams that enter the first of them, of equal dtype.
        layers: of each of those, the layers whose outputs it keeps; empty if none keeps any. A compiled
            graph keeps none of them, and computes them again.

    Returns:
        The two streams behind the last of them.
    """
    import torch

    from revmodels.coupling.context import NO_CONTEXT
    from revmodels.engine import eager
    from revmodels.torch_internals import has_hooks

    x1, x2 = streams
    if torch.compiler.is_dynamo_compiling():
        # A compiled graph calls F and G, and not the units: a hook on one of them would not be called.
        if forward.observer is not None or any(has_hooks(forward.units[index]) for index in indices):
            from revmodels.engine.outside_graphs import run_watched

            return run_watched(rebuilt, forward, indices, keeps, *streams, layers=layers)
        from revmodels.compiled import network as compiled  # imports the compiler, which takes a second

        return compiled.run(
            forward.units, indices, x1, x2, keeps=tuple(keeps), context=forward.context or NO_CONTEXT
        )
    first = indices[0]
    return eager.run(
        [forward.units[index] for index in indices],  # type: ignore[misc]
        x1,
        x2,
        forward.observer,
        keeps=keeps,
        first=first,
        extent=forward.extent,
        origin=None if first else forward.origin,
        context=forward.context or NO_CONTEXT,
        layers=layers,
    )
