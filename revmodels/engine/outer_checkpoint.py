"""Forward passes of a sequence under somebody's checkpoint, which are run again in the backward pass.

`torch.utils.checkpoint` around a network runs it a second time in the backward pass, and puts the tensors
that are saved then in the place of those of the first time, one by one. Another memory strategy saves others.
"""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor, nn

from revmodels.errors import ReplayError
from revmodels.torch_internals import are_saved_tensors_hooked, is_in_backward_pass


class _Pass:
    """Lives as long as the graph of a forward pass, and tells how it was run."""

    def __init__(self, how: Any) -> None:
        self.how = how


_passes: weakref.WeakKeyDictionary[nn.Module, list[weakref.ref[_Pass]]] = weakref.WeakKeyDictionary()


def check_repetition(sequence: nn.Module, how: Any) -> None:
    """Make sure that a sequence which runs in a backward pass runs as it did in the forward pass.

    Args:
        sequence: what is about to run.
        how: its units and strategy, and whatever else decides which tensors are saved.

    Raises:
        ReplayError: it was run in another way, and its graph is alive.
    """
    if not is_in_backward_pass():
        return
    for reference in _passes.get(sequence, ()):
        earlier = reference()
        if earlier is not None and earlier.how != how:
            raise ReplayError(
                "the units, the strategy, the anchors or the plan of a reversible sequence were changed "
                "between its forward pass and its recomputation by a checkpoint around it, which would take "
                "other tensors for those of the forward pass. Change them before the forward pass or after "
                "the backward."
            )


def note_pass(sequence: nn.Module, how: Any, *outputs: Tensor) -> None:
    """Remember how a sequence was run, while its graph lives, if a checkpoint may run it again.

    Args:
        sequence: what has run.
        how: as for `check_repetition`.
        outputs: what it has returned.
    """
    node = next((y.grad_fn for y in outputs if y.grad_fn is not None), None)
    if node is None or not are_saved_tensors_hooked() or is_in_backward_pass():
        return
    noted = _Pass(how)
    # What is put there lives as long as the node.
    metadata: Any = node.metadata
    metadata[_Pass] = noted
    living = [reference for reference in _passes.get(sequence, ()) if reference() is not None]
    _passes[sequence] = [*living, weakref.ref(noted)]
