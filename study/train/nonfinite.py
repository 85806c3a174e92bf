"""Where a training step went wrong: the first block whose output, or gradient, is not finite."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from revmodels.errors import RevModelsError


def first_bad_block(model: nn.Module, *inputs: Tensor) -> str:
    """Repeat the forward pass of a step whose loss or gradients are not finite, and say where it began.

    Args:
        model: The network as the step found it, with the step's gradients.
        inputs: What the step called it with.

    Returns:
        str A clause for a message; it names no block if the fault lies outside of all.
    """
    if not all(torch.isfinite(x).all() for x in inputs):
        return "the batch itself is not finite"
    blocks = _blocks(model)
    bad: list[int] = []

    def look(index: int, out: Any) -> None:
        tensors = out if isinstance(out, tuple) else (out,)
        if not bad and not all(torch.isfinite(t).all() for t in tensors):
            bad.append(index)

    hooks = [
        block.register_forward_hook(lambda _, __, out, index=index: look(index, out))
        for index, block in enumerate(blocks)
    ]
    try:
        with torch.no_grad():
            model(*inputs)
    except RevModelsError:
        pass  # An exact stream out of range is what is looked for.
    finally:
        for hook in hooks:
            hook.remove()
    if bad:
        return f"the first block whose output is not finite is block {bad[0]}"
    # Gradients travel from the last block to the first.
    for index in reversed(range(len(blocks))):
        if not _finite(p.grad for p in blocks[index].parameters() if p.grad is not None):
            return f"every block's output is finite; the gradient first is not in block {index}"
    return "every block's output and gradient is finite: the fault lies in the stem or the head"


def _blocks(model: nn.Module) -> list[nn.Module]:
    body = model.get_submodule("body")
    return list(getattr(body, "blocks", body.children()))


def _finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in tensors)
