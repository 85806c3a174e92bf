"""What no graph of a reversible network can hold, refused by name before anything is traced."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from revmodels.errors import CompileError
from revmodels.torch_internals import are_transforms_active, has_global_hook


def refuse_uncompilable(blocks: nn.ModuleList) -> None:
    """Make sure that a compiler can trace these units.

    Args:
        blocks: the units of a sequence.

    Raises:
        CompileError: a hook is registered for every module, a layer is lazy and has no shape yet, or a
            transform of `torch.func` is running.
    """
    if has_global_hook():
        raise CompileError(
            "a hook is registered for every module (register_module_forward_hook and the like); in a "
            "compiled reversible network it would see the tensors of a trace, without numbers. Remove it, or "
            "call the network uncompiled."
        )
    if are_transforms_active():
        # An error whose constructor has code of its own cannot be raised while a compiler traces.
        raise CompileError(
            "a transform of torch.func (grad, vmap, jvp, ...) cannot pass through a reversible sequence that "
            "rebuilds activations. Use strategy='store' for it."
        )
    lazy = _lazy(blocks)
    if lazy:
        raise CompileError(
            f"{lazy} has no shape yet, and a graph needs one. Call the network once uncompiled, under "
            "torch.no_grad(), to give its lazy layers theirs."
        )


@torch.compiler.assume_constant_result
def _lazy(blocks: nn.ModuleList) -> str:
    for name, t in (*blocks.named_parameters("blocks"), *blocks.named_buffers("blocks")):
        if isinstance(t, UninitializedParameter | UninitializedBuffer):
            return name
    return ""
