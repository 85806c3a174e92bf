"""Compiling: PyTorch's own trade of memory against time, which computes again and never inverts.

`torch.compile` sees forward and backward of a stored network as one graph and cuts it where the least has to
be kept (a minimum cut). A budget, a share of what it would keep else, makes it compute more again; what to
compute again is chosen as a knapsack (PyTorch's ``activation_memory_budget``). It bounds what is held between
forward and backward, not the peak of the backward pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from study.settings import MemorySettings

COMPILE = "compile"
"""The name of the strategy in study files."""


@contextlib.contextmanager
def compiling(memory: MemorySettings) -> Iterator[None]:
    """A context in which a trial's network may be compiled, whatever the process compiled before."""
    if memory.strategy != COMPILE:
        yield
        return
    from torch._functorch import config

    torch.compiler.reset()
    try:
        with config.patch(activation_memory_budget=memory.activation_budget or 1.0):
            yield
    finally:
        torch.compiler.reset()


def compiled(model: nn.Module) -> nn.Module:
    """The network as one compiled graph, on the weights of `model`; no part of it is left to Python."""
    return torch.compile(model, fullgraph=True)  # type: ignore[return-value]
