"""Floating-point operations of one training step: what the network asks for, and what a strategy makes of it.

Counted are products and convolutions, two operations for each multiply-add, by PyTorch's `FlopCounterMode` on
fake tensors: nothing is allocated or computed. What has no formula there (norms, activations, the optimizer,
LSTM layers) counts as nothing. Attention counts every pair of positions, causal or not, as is usual. The
derivation by hand is in ``docs/operations.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from revmodels.memory.preserved_state import random_state_kept
from revmodels.memory.step import described, shaped_copy
from revmodels.models.base import ResidualNetwork
from revmodels.models.decoder_layers import Head
from revmodels.operations import operation_counter
from revmodels.sequence import ReversibleSequence
from revmodels.strategies.registry import find_strategy
from revmodels.torch_internals import FakeTensorMode, tree_leaves

STORE = "store"


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Floating-point operations of one training step.

    Attributes:
        model: forward and backward pass with nothing computed twice: what utilization (MFU) is about.
        hardware: what is really done, whatever is computed again for the strategy, by attention's backward
            kernel or by a loss in chunks. None with a strategy that leaves the choice to a compiler.
    """

    model: int
    hardware: int | None

    @property
    def ratio(self) -> float | None:
        """Hardware's over the model's; None if either is not known."""
        return None if self.hardware is None or not self.model else self.hardware / self.model


def flops(
    model: nn.Module | Callable[[], nn.Module],
    inputs: Tensor | tuple[Tensor, ...],
    *,
    loss: Callable[[Any], Tensor] | None = None,
) -> Operations:
    """Count the floating-point operations of one training step without doing them.

    Args:
        model: a module with the strategy that is asked about, or a function that builds one, which is called
            under the ``meta`` device. It is left as it is.
        inputs: what it is called with, of which only shapes, layouts and dtypes count: one tensor or several,
            on any device.
        loss: maps what the model returns to a scalar; None sums up all floating numbers that it returns,
            which costs no operations that count.

    Returns:
        Operations of forward and backward pass; the optimizer's are not counted.

    Example:
        >>> import revmodels
        >>> tokens = torch.empty(2, 64, dtype=torch.long, device="meta")
        >>> build = lambda: revmodels.create_model("revgpt_100k", strategy="reverse")
        >>> round(flops(build, tokens).ratio, 2)
        1.26
    """
    if not isinstance(model, nn.Module):
        with torch.device("meta"):
            model = model()
    return Operations(
        model=model_flops(model, inputs, loss=loss), hardware=hardware_flops(model, inputs, loss=loss)
    )


def model_flops(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...], *, loss: Callable[[Any], Tensor] | None = None
) -> int:
    """Count the operations of a step in which nothing is computed twice; see `flops`.

    Args:
        model: a module under any strategy.
        inputs: what it is called with.
        loss: maps what the model returns to a scalar.

    Returns:
        `Operations.model`.
    """
    with random_state_kept(torch.device("cpu")), FakeTensorMode():
        once = shaped_copy(model, "cpu")
        _compute_once(once)
        return _count(once, _described(inputs), loss or _sum, attention_scores_once=True)


def hardware_flops(
    model: nn.Module, inputs: Tensor | tuple[Tensor, ...], *, loss: Callable[[Any], Tensor] | None = None
) -> int | None:
    """Count the operations of a step under the model's strategy; see `flops`.

    Args:
        model: a module with the strategy that is asked about.
        inputs: what it is called with.
        loss: maps what the model returns to a scalar.

    Returns:
        `Operations.hardware`.
    """
    found = [find_strategy(name) for name in _strategies(model)]
    if any(one.whole_network for one in found):
        return None
    with random_state_kept(torch.device("cpu")), FakeTensorMode():
        real, fakes = shaped_copy(model, "cpu"), _described(inputs)
        if any(one.plans for one in found):
            real(*fakes)  # What planning tries is no part of a step.
        return _count(real, fakes, loss or _sum)


def _described(inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(described(x) for x in ((inputs,) if isinstance(inputs, Tensor) else inputs))


def _count(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    loss: Callable[[Any], Tensor],
    *,
    attention_scores_once: bool = False,
) -> int:
    with operation_counter(attention_scores_once=attention_scores_once) as counter:
        value = loss(model(*inputs))
        if value.requires_grad:
            value.backward()
    return counter.get_total_flops()


def _sum(output: Any) -> Tensor:
    numbers = [t for t in tree_leaves(output) if isinstance(t, Tensor) and t.is_floating_point()]
    return torch.stack([t.sum() for t in numbers]).sum()


def _strategies(model: nn.Module) -> Iterator[str]:
    for module in model.modules():
        if isinstance(module, ReversibleSequence | ResidualNetwork):
            yield module.strategy


def _compute_once(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, ReversibleSequence):
            module.anchor_every = None
        if isinstance(module, ReversibleSequence | ResidualNetwork):
            module.strategy = STORE
        elif isinstance(module, Head):
            module.chunk = sys.maxsize
