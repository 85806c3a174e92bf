"""Checkpointing every unit: its input is kept, and the rest of it is computed again.

Chen, Xu, Zhang and Guestrin, "Training Deep Nets with Sublinear Memory Cost" (2016), with one unit a segment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from revmodels.strategies.strategy import ForwardPass, Strategy, Streams

if TYPE_CHECKING:
    from torch import Tensor, nn


class Checkpoint(Strategy):
    """Each unit keeps its input pair, whose memory grows with depth, but no activation within it."""

    name = "checkpoint"
    summary = "Keeps the input of every unit; one forward pass of the units is repeated."
    unit_by_unit = True

    def run(self, forward: ForwardPass, *streams: Tensor) -> Streams:
        """Apply the units in turn, each under `torch.utils.checkpoint`; see `Strategy.run`."""
        for index, unit in enumerate(forward.units):
            streams = checkpointed(forward.apply, unit, *streams, modules=(unit,), name=f"unit {index}")
            forward.see(index, streams)
        return streams


Contexts = Callable[[], tuple[AbstractContextManager, AbstractContextManager]]
"""Makes a context for the first call of what is checkpointed, and one for its repetitions."""


def checkpointed(
    function: Callable[..., Any],
    *inputs: Any,
    modules: Sequence[nn.Module],
    name: str,
    within: Contexts | None = None,
) -> Any:
    """Call `function` under `torch.utils.checkpoint`: its inputs are stored, the rest is recomputed.

    What the call changes in `modules` (running statistics, for one) it changes once, in the forward pass;
    plain checkpointing changes it twice.

    Args:
        function: what is called, and called again in the backward pass.
        inputs: its arguments, tensors of any shape and dtype among them.
        modules: those that `function` evaluates.
        name: of what is called, for messages.
        within: makes further contexts, inside of which the calls are made; None for no others.

    Returns:
        What `function` returns.

    Raises:
        ReplayError: the call or somebody else wrote to one of its inputs, or it changed what cannot be put
            back.
    """
    import torch
    from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

    from revmodels.engine.repeated_call import RepeatedCall
    from revmodels.errors import ReplayError
    from revmodels.torch_internals import version

    if torch.compiler.is_dynamo_compiling():
        # A graph writes to running statistics once, whatever it recomputes.
        if within is None:
            return checkpoint(function, *inputs, use_reentrant=False)
        return checkpoint(function, *inputs, use_reentrant=False, context_fn=within)

    call = RepeatedCall(modules, name)

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return call.first(), call.again()

    first, again = (nullcontext(), nullcontext()) if within is None else within()
    is_repeated = False

    def evaluate(*inputs: Any) -> Any:
        # What a hook does to the inputs of a recomputation must not reach the graph that is differentiated.
        nonlocal is_repeated
        if not is_repeated:
            is_repeated = True
            with first:
                return function(*inputs)
        inputs = kept.repeated(inputs)
        with again:
            return function(*inputs)

    # The user may have asked for an early stop of all checkpoints; of ours, not all bear it.
    tensors = [x for x in inputs if isinstance(x, torch.Tensor)]
    before = [version(x) for x in tensors]
    kept = _KeptInputs(tensors, name)
    with nullcontext() if call.is_known else set_checkpoint_early_stop(False):
        outputs = checkpoint(evaluate, *inputs, use_reentrant=False, context_fn=contexts)
    if [version(x) for x in tensors] != before:
        raise ReplayError(
            f"{name} changes its input in place, and the backward pass needs it as it was. Let the first "
            "layer of F and G write to memory of its own (inplace=False)."
        )
    return outputs


class _KeptInputs:
    """What is known of a call's inputs, to tell whether its repetition is given the same.

    Hooks on saved tensors stand between. Some hand back the same memory, and autograd then looks at no
    version. Others hand back a copy in another layout, of which PyTorch might save other tensors than of the
    first.
    """

    def __init__(self, tensors: Sequence[Tensor], name: str) -> None:
        from revmodels.torch_internals import MemoryMark, are_saved_tensors_hooked

        self._name = name
        self._marks = [MemoryMark(x) for x in tensors] if are_saved_tensors_hooked() else []
        self._strides = [_strides(x) for x in tensors]

    def repeated(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """The inputs of the repetition, in a graph of their own and in the layout of the first call's."""
        import torch

        from revmodels.errors import ReplayError

        tensors = [x for x in inputs if isinstance(x, torch.Tensor)]
        if self._marks and any(mark.is_stale(x) for mark, x in zip(self._marks, tensors, strict=True)):
            raise ReplayError(
                f"the input of {self._name}, which is kept for the backward pass, was modified by an inplace "
                "operation. Change a copy of it, or use strategy='store'."
            )
        strides = iter(self._strides)
        return tuple(_apart(x, next(strides)) if isinstance(x, torch.Tensor) else x for x in inputs)


def _strides(x: Tensor) -> tuple[int, ...] | None:
    import torch

    return x.stride() if x.layout is torch.strided and not x.is_nested else None


def _apart(x: Tensor, strides: tuple[int, ...] | None) -> Tensor:
    """`x`, a leaf if it is one, in a graph of its own; in the same memory, but for another layout."""
    from revmodels.engine.graph_of_call import passage

    leaf = x.detach()
    if _strides(leaf) != strides and strides is not None:
        leaf = leaf.new_empty_strided(leaf.shape, strides).copy_(leaf)
    leaf.requires_grad_(x.requires_grad)
    return leaf if x.is_leaf else passage(leaf)
