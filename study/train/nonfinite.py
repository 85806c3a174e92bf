"""Where a training step went wrong: the first block whose output, or gradient, is not finite."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from revmodels.errors import RevModelsError
from revmodels.sequence import ReversibleSequence
from study.network import rows_of_units


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
    return "every block's output and gradient is finite: the fault lies outside of them"


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The units of the network: reversible ones, or those of its body, or of the rows that it is made of."""
    sequences = [m for m in model.modules() if isinstance(m, ReversibleSequence)]
    if sequences:
        return [unit for sequence in sequences for unit in sequence.units()]
    body = getattr(model, "body", None)
    if isinstance(body, nn.Module):
        return list(body.children())
    return [unit for row in rows_of_units(model) for unit in row.children()] or list(model.children())


def _finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in tensors)
