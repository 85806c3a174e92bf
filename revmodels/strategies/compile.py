"""Compiling: PyTorch's own trade of memory against time, which computes again and never inverts.

`torch.compile` sees forward and backward of a stored network as one graph and cuts it where the least has to
be kept (a minimum cut). A budget, a share of what it would keep else, makes it compute more again; what to
compute again is chosen as a knapsack (PyTorch's ``activation_memory_budget``). It bounds what is held between
forward and backward, not the peak of the backward pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from revmodels.strategies.store import Store

if TYPE_CHECKING:
    from torch import nn


class Compile(Store):
    """A network that stores, compiled as one graph. What `prepare` was not called on stores everything."""

    name = "compile"
    summary = "PyTorch's compiler chooses what is kept, within a share of what it would keep else."
    saves_memory = True
    recomputes = True
    settings: ClassVar = {"activation_budget": 1.0}
    whole_network = True
    predicts_exactly = False

    def prepare(self, model: nn.Module) -> nn.Module:
        """The network as one compiled graph, on the weights of `model`; no part of it is left to Python."""
        import torch

        return torch.compile(model, fullgraph=True)  # type: ignore[return-value]

    @contextlib.contextmanager
    def session(self, **settings: object) -> Iterator[None]:
        """A context in which networks are compiled afresh, whatever the process compiled before.

        Args:
            settings: ``activation_budget``, the share of what the compiler would keep by itself, 0 to 1; None
                or none is 1.
        """
        import torch

        from revmodels.torch_internals import activation_memory_budget

        budget = self.resolved({"activation_budget": None, **settings})["activation_budget"]
        assert isinstance(budget, int | float)
        torch.compiler.reset()
        try:
            with activation_memory_budget(float(budget)):
                yield
        finally:
            torch.compiler.reset()
