"""What could go wrong in a replay, and does not show in one step on a few numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from revmodels.engine.graph_of_call import kept_graphs
from revmodels.testing.instruments import leaves, loss, step
from revmodels.testing.network_under_test import Figure, Make, compared

ROUNDS = 3
"""Disturbances that are tried, each of other numbers."""
LIMIT = 1e-6
"""A branch that is taken by the last bit of a number moves gradients by a hundredth and more."""


def rounding(make: Make) -> list[Figure]:
    """Gradients hardly move when F and G are given their input with a rounding error, as in a replay.

    A function that branches on the last bits of its input cannot be replayed, although it may be by luck.

    Args:
        make: makes the network and its twin.

    Returns:
        For every round the worst figure.
    """
    figures = []
    for number in range(ROUNDS):
        subject = make(torch.float64)
        residuals = dict.fromkeys(fn for unit in subject.units for fn in unit.residuals)
        with _disturbed(residuals, number):
            found = step(subject.model, subject.inputs)
        exact = step(subject.twin, subject.inputs)
        worst = max(compared(subject, found, exact, LIMIT), key=lambda f: f.value, default=None)
        if worst is not None:
            what = f"with rounding errors in what F and G are given, {worst.what}"
            figures.append(Figure(what, worst.value, LIMIT))
    return figures


@contextmanager
def _disturbed(residuals: dict[nn.Module, None], number: int) -> Iterator[None]:
    def disturb(_: nn.Module, args: tuple) -> tuple:
        x = args[0]
        signs = (
            torch.arange(x.numel(), dtype=x.dtype, device=x.device)
            .mul(number + 1)
            .remainder(3)
            .sub(1)
            .view(x.shape)
        )
        return x * (1 + signs * torch.finfo(x.dtype).eps), *args[1:]

    with ExitStack() as stack:
        for fn in residuals:
            stack.callback(fn.register_forward_pre_hook(disturb).remove)
        yield


def kept_tensors(net: nn.Module, inputs: tuple[Tensor, ...]) -> Figure:
    """How many calls of F and G keep a tensor whose gradient nobody can compute, and which.

    Args:
        net: is called once.
        inputs: what it is called with.

    Returns:
        The figure, none of which is allowed.
    """
    torch.manual_seed(1)
    with kept_graphs() as names:
        loss(net(*leaves(inputs)))
    which = ", ".join(dict.fromkeys(names)) or "F and G"
    what = (
        f"calls in which {which} kept a tensor with its graph beside the result: an auxiliary loss is "
        "returned as the result or computed outside, anything else is kept by detach()"
    )
    return Figure(what, len(names), 0)
