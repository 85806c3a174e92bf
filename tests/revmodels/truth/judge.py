"""The judge of this folder: a step under a strategy against the same step with stored activations.

A test builds a network, says how it is used in a step, and asks for a verdict: values and every gradient
equal the stored twin's in float64, or a named error. Nothing else is allowed, whatever the network does.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn

from revmodels import ReversibleBlock, ReversibleSequence, RevModelsError, StageEntry
from revmodels.engine.kept_layers import keepable_layers_of

WIDTH = 4
"""Channels of a stream."""

REBUILDING = ("reverse", "anchors", "checkpoint", "budget")
"""Ways to train without storing everything; ``anchors`` is ``reverse`` with every second unit stored."""

strategies = pytest.mark.parametrize("strategy", REBUILDING)
reversing = pytest.mark.parametrize("strategy", ("reverse", "anchors"))

Step = Callable[[nn.Module, Tensor], Mapping[str, Tensor | None]]


def put(net: nn.Module, strategy: str) -> nn.Module:
    """Give every sequence of `net` a strategy."""
    for module in net.modules():
        if isinstance(module, ReversibleSequence):
            module.strategy = "reverse" if strategy == "anchors" else strategy
            if strategy == "anchors":
                module.anchor_every = 1
            if strategy == "budget":
                decide(module)
    return net


def decide(net: ReversibleSequence) -> None:
    """In place of a planner: units are rebuilt, stored and kept in turn, with all layers that can be kept."""
    entries = [isinstance(unit, StageEntry) for unit in net.units()]
    in_turn = itertools.cycle(("reverse", "store", "checkpoint"))
    modes = tuple("checkpoint" if entry else next(in_turn) for entry in entries)
    net.plans.tried = modes
    net.plans.tried_layers = tuple(tuple(keepable_layers_of(unit)) for unit in net.units())


def sequence(make: Callable[[], nn.Module], depth: int = 3, dim: int = 1) -> ReversibleSequence:
    """`depth` blocks with fresh F and G each, in float64."""
    blocks = [ReversibleBlock(make(), make(), split_dim=dim) for _ in range(depth)]
    return ReversibleSequence(blocks, split_dim=dim).double()


def staged(make: Callable[[], nn.Module], depth: int = 3) -> ReversibleSequence:
    """The same, and behind the first block a stage entry."""
    plain = [ReversibleBlock(make(), make()) for _ in range(depth)]
    entry = StageEntry(make(), make(), nn.Identity(), nn.Identity())
    return ReversibleSequence([plain[0], entry, *plain[1:]]).double()


def batch(*shape: int, requires_grad: bool = True) -> Tensor:
    """Numbers that are the same in every call."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return x.requires_grad_(requires_grad)


def loss_of(out: Tensor) -> Tensor:
    """A scalar to which every number contributes, with another weight each."""
    if out.is_complex():
        out = torch.view_as_real(out)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device)
    return (out.flatten() * weights).sum() + out.square().mean()


def train(net: nn.Module, x: Tensor) -> dict[str, Tensor | None]:
    """An ordinary training step: the output, and the gradients of input and parameters."""
    out = net(x)
    loss_of(out).backward()
    return {"output": out.detach(), **gradients(net, x)}


def gradients(net: nn.Module, *inputs: Tensor) -> dict[str, Tensor | None]:
    """The gradients that a backward pass has left behind."""
    found = {f"input {i}": x.grad for i, x in enumerate(inputs)}
    return found | {name: p.grad for name, p in net.named_parameters()}


def outcome(net: nn.Module, x: Tensor, strategy: str, step: Step) -> dict[str, Tensor | None]:
    """What a step leaves: what `step` returns, and the buffers and the next random number."""
    net, x = copy.deepcopy(net), x.detach().clone().requires_grad_(x.requires_grad)
    put(net, strategy)
    torch.manual_seed(3)
    found = dict(step(net, x))
    found |= {f"buffer {name}": b.clone() for name, b in net.named_buffers()}
    return found | {"next random number": torch.rand(())}


def judge(net: nn.Module, x: Tensor, strategy: str, step: Step = train, tolerance: float = 1e-10) -> None:
    """Everything that a step leaves is what it leaves with stored activations.

    Raises:
        AssertionError: something differs.
    """
    expected = outcome(net, x, "store", step)
    found = outcome(net, x, strategy, step)
    assert found.keys() == expected.keys()
    for name, right in expected.items():
        value = found[name]
        if right is None or value is None:
            assert right is None and value is None, f"{name}: {value} instead of {right}"
            continue
        torch.testing.assert_close(
            value, right, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def refuse(
    net: nn.Module, x: Tensor, strategy: str, step: Step = train, *, match: str, error=RevModelsError
) -> None:
    """A step is refused by name.

    Raises:
        AssertionError: it is not.
    """
    with pytest.raises(error, match=match):
        outcome(net, x, strategy, step)
