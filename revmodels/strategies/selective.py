"""Selective checkpointing: of every unit the results of some operations are kept, the rest is computed again.

What is kept are attention and every second product (of matrices, or convolution), the first of a unit among
them, as torchtitan does (``apply_ac`` in its ``activation_checkpoint.py``): these cost most to compute again.
PyTorch does it, with `torch.utils.checkpoint.create_selective_checkpoint_contexts`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from revmodels.strategies.checkpoint import checkpointed
from revmodels.strategies.strategy import ForwardPass, Strategy, Streams

if TYPE_CHECKING:
    from torch import Tensor

_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "_scaled_mm")
_ATTENTION = (
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)


class Selective(Strategy):
    """Each unit keeps its input, its attention and every second product."""

    name = "selective"
    summary = "Keeps the input of every unit, its attention and every second product; the rest is repeated."

    def run(self, forward: ForwardPass, *streams: Tensor) -> Streams:
        """Apply the units in turn, each under `torch.utils.checkpoint`; see `Strategy.run`."""
        for index, unit in enumerate(forward.units):
            streams = checkpointed(
                forward.apply,
                unit,
                *streams,
                modules=(unit,),
                name=f"unit {index}",
                within=_selective_contexts,
            )
            forward.see(index, streams)
        return streams


def _selective_contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
    from torch.utils.checkpoint import create_selective_checkpoint_contexts

    return create_selective_checkpoint_contexts(_policy())


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
