"""A counter of operations: PyTorch's, with the attention kernel of the CPU, for which it has no formula."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from revmodels.torch_internals import attention_kernels

Shape = torch.Size


def _product(query: Shape, rows: int, features: int) -> int:
    """Operations of a product of (length, features) by (features, rows), in each head of each sequence."""
    batch, heads, length, _ = query
    return 2 * batch * heads * length * rows * features


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Scores, and what they select: two products. Causal or not, PyTorch counts all pairs, and so do we."""
    return _product(query, key[-2], query[-1]) + _product(query, key[-2], value[-1])


def _attention_backward(_: Shape, query: Shape, key: Shape, value: Shape, *__: Any, **___: Any) -> int:
    """The scores again, and two products for each of the two of the forward pass."""
    scores = _product(query, key[-2], query[-1])
    return scores + _without_scores(_, query, key, value)


def _without_scores(_: Shape, query: Shape, key: Shape, value: Shape, *__: Any, **___: Any) -> int:
    return 2 * _attention(query, key, value)


def operation_counter(*, attention_scores_once: bool = False) -> FlopCounterMode:
    """A context that counts the operations of products and convolutions in it, two for each multiply-add.

    Args:
        attention_scores_once: whether the scores that attention's backward kernels compute again are left
            out.

    Returns:
        The context, with ``get_total_flops()`` after it.
    """
    forward, backward, others = attention_kernels()
    formulas: dict[Any, Any] = {forward: _attention, backward: _attention_backward}
    if attention_scores_once:
        formulas |= dict.fromkeys((backward, *others), _without_scores)
    return FlopCounterMode(display=False, custom_mapping=formulas)
