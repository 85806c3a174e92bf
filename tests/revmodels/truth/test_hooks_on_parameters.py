"""Hooks on parameters run once a backward pass, as with stored activations, whatever they do to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from revmodels import ReversibleBlock, ReversibleSequence
from tests.revmodels.truth.judge import (
    REBUILDING,
    WIDTH,
    batch,
    judge,
    loss_of,
    put,
    sequence,
    strategies,
)


def _step(strategy: str, *, shared: bool = False, nested: bool = False) -> tuple[dict[str, Tensor], int]:
    torch.manual_seed(0)
    layer = nn.Linear(WIDTH, WIDTH)
    inner: nn.Module = layer
    if nested:
        pair = ReversibleSequence([ReversibleBlock(nn.Linear(WIDTH // 2, WIDTH // 2), nn.Tanh())])
        layer, inner = pair.blocks[0].f, pair
    blocks = [ReversibleBlock(inner, inner if shared else nn.Linear(WIDTH, WIDTH)) for _ in range(3)]
    net = put(ReversibleSequence(blocks).double(), strategy)
    calls = []
    for p in layer.parameters():
        p.register_hook(lambda d: (calls.append(1), d * 0.5)[1])
    net(batch(3, 2 * WIDTH)).square().sum().backward()
    return {name: p.grad for name, p in net.named_parameters()}, len(calls)


@pytest.mark.parametrize("strategy", REBUILDING)
@pytest.mark.parametrize(
    "options", [{}, {"shared": True}, {"nested": True}], ids=["plain", "shared", "nested"]
)
def test_a_hook_that_halves_the_gradient_halves_it_once(strategy, options):
    exact, calls = _step("store", **options)
    found, found_calls = _step(strategy, **options)
    assert found_calls == calls == 2
    for name, gradient in exact.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-12, atol=1e-12)


def test_the_hooks_are_there_again_after_an_error():
    net = ReversibleSequence([ReversibleBlock(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))]).double()
    weight, calls = net.blocks[0].f.weight, []
    weight.register_hook(lambda d: calls.append(1))

    class Failing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, d):
            raise ArithmeticError("on purpose")

    handle = net.blocks[0].f.register_forward_hook(lambda m, args, out: Failing.apply(out))
    with pytest.raises(ArithmeticError):
        net(batch(3, 2 * WIDTH)).sum().backward()
    handle.remove()
    calls.clear()
    net(batch(3, 2 * WIDTH)).sum().backward()
    assert len(calls) == 1


class Unread(nn.Module):
    """Has a parameter that its result does not depend on."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.used(x) + torch.zeros_like(self.unused(x))


@strategies
def test_a_parameter_without_a_gradient_accumulates_none(strategy):
    """Optimizers that step inside the backward pass expect a gradient whenever they are called."""

    def step(net, x):
        def descend(p):
            with torch.no_grad():
                p.sub_(p.grad, alpha=0.1)
            p.grad = None

        for p in net.parameters():
            p.register_post_accumulate_grad_hook(descend)
        loss_of(net(x)).backward()
        return {"input": x.grad, **{name: p.detach().clone() for name, p in net.named_parameters()}}

    torch.manual_seed(0)
    judge(sequence(Unread), batch(3, 2 * WIDTH), strategy, step)


@pytest.mark.parametrize("strategy", [*REBUILDING, "recursive"])
def test_a_hook_that_a_unit_puts_on_its_input_is_put_there_once(strategy):
    def step(net, x):
        for unit in net.blocks:
            unit.register_forward_pre_hook(
                lambda m, args: [t.register_hook(lambda d: d * 0.5) for t in args] and None
            )
        y1, y2 = net(x, x.detach().cos().requires_grad_())
        (loss_of(y1) + loss_of(y2)).backward()
        return {"input": x.grad, **{name: p.grad for name, p in net.named_parameters()}}

    torch.manual_seed(0)
    judge(sequence(lambda: nn.Linear(WIDTH, WIDTH)), batch(3, WIDTH), strategy, step)
