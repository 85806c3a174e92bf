"""Selective checkpointing: of every unit the results of some operations are kept, the rest is computed again.

What is kept are attention and every second product (of matrices, or convolution), the first of a unit among
them, as torchtitan does (``apply_ac`` in its ``activation_checkpoint.py``): these cost most to compute again.
PyTorch does it, with `torch.utils.checkpoint.create_selective_checkpoint_contexts`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from revmodels.errors import ReplayError
from revmodels.strategies.checkpoint import checkpointed
from revmodels.strategies.strategy import ForwardPass, Strategy, Streams

if TYPE_CHECKING:
    from types import TracebackType

    from torch import Tensor

_REFUSALS = {
    "has been mutated": "changes in place what strategy='selective' keeps of it for the backward pass. Let "
    "its layers write to memory of their own (inplace=False), or use strategy='checkpoint'.",
    "backward an extra time": "is differentiated a second time, and strategy='selective' has given back what "
    "it kept. Use strategy='checkpoint', which repeats everything.",
}
"""What PyTorch says when kept results cannot be used, and what it means for a unit."""

_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "_scaled_mm")
_ATTENTION = (
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)


class Selective(Strategy):
    """Each unit keeps its input, its attention and every second product.

    A unit that changes in place what is kept of it, or that is differentiated a second time, is refused with
    a `ReplayError` in the backward pass.
    """

    name = "selective"
    summary = "Keeps the input of every unit, its attention and every second product; the rest is repeated."

    def run(self, forward: ForwardPass, *streams: Tensor) -> Streams:
        """Apply the units in turn, each under `torch.utils.checkpoint`; see `Strategy.run`."""
        import torch

        # A compiler takes a plain function alone, and needs none of these messages.
        is_traced = torch.compiler.is_dynamo_compiling()
        for index, unit in enumerate(forward.units):
            name = f"unit {index}"
            streams = checkpointed(
                forward.apply,
                unit,
                *streams,
                modules=(unit,),
                name=name,
                within=_contexts if is_traced else partial(_named_contexts, name),
            )
            forward.see(index, streams)
        return streams


def _contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
    from torch.utils.checkpoint import create_selective_checkpoint_contexts

    return create_selective_checkpoint_contexts(_policy())


def _named_contexts(name: str) -> tuple[AbstractContextManager, AbstractContextManager]:
    first, again = _contexts()
    return first, _Named(again, name)


class _Named(AbstractContextManager):
    """A context for repetitions, which names the unit in what PyTorch refuses; it may be entered again."""

    def __init__(self, context: AbstractContextManager, name: str) -> None:
        self._context, self._name = context, name

    def __enter__(self) -> None:
        self._context.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.__exit__(kind, error, trace)
        for said, meaning in _REFUSALS.items():
            if isinstance(error, RuntimeError) and said in str(error):
                raise ReplayError(f"{self._name} {meaning}") from error


def _policy() -> Callable[..., Any]:
    """A function that says of each operation of a call, in turn, whether its result is kept."""
    from torch.utils.checkpoint import CheckpointPolicy

    products, attention = _operations()
    count = 0

    def keeps(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        nonlocal count
        if operation in products:
            count += 1
        kept = operation in attention or (operation in products and count % 2 == 1)
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    return keeps


@lru_cache(maxsize=1)
def _operations() -> tuple[frozenset[Any], frozenset[Any]]:
    import torch

    found = (
        frozenset(getattr(torch.ops.aten, name).default for name in names if hasattr(torch.ops.aten, name))
        for names in (_PRODUCTS, _ATTENTION)
    )
    products, attention = found
    return products, attention
