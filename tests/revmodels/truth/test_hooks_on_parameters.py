"""Hooks on parameters run once a backward pass, as with stored activations, whatever they do to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from revmodels import ReversibleBlock, ReversibleSequence, StageEntry
from revmodels.errors import ReplayError
from revmodels.strategies.registry import STRATEGIES, find_strategy
from tests.revmodels.truth.judge import (
    REBUILDING,
    WIDTH,
    batch,
    gradients,
    judge,
    loss_of,
    put,
    sequence,
    staged,
    strategies,
)

EXACT = {name for name in STRATEGIES if find_strategy(name).tolerance == 1e-12}
ONE_OUTPUT = sorted({*REBUILDING, *EXACT} - {"store", "selective"})  # which differentiates a call once


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


@pytest.mark.parametrize("strategy", ONE_OUTPUT)
@pytest.mark.parametrize("used", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize("make", [sequence, staged], ids=["blocks", "stage entry last"])
def test_hooks_of_what_only_an_unused_output_depends_on_are_not_called(make, used, strategy):
    """A loss of one stream alone; an earlier gradient is there, and a hook must not take it for a new one."""

    def step(net, x):
        calls = []
        for name, p in net.named_parameters():
            p.register_hook(lambda d, name=name: (calls.append(name), d * 0.5)[1])
            p.register_post_accumulate_grad_hook(lambda p, name=name: calls.append(f"{name}, accumulated"))
        ys = net(x, x.detach().cos().requires_grad_())
        sum(map(loss_of, ys)).backward(retain_graph=True)
        calls.append("one output")
        loss_of(ys[used]).backward(retain_graph=True)
        calls.append("both again")
        sum(map(loss_of, ys)).backward()
        # In which order gradients arrive within a backward pass is nobody's promise.
        parts = ",".join(calls).split("one output")[1].split("both again")
        seen = "|".join(",".join(sorted(part.split(","))) for part in parts)
        return {"input": x.grad, "hooks": torch.tensor(list(seen.encode())), **gradients(net, x)}

    torch.manual_seed(0)
    net = make(lambda: nn.Linear(WIDTH, WIDTH), 2)
    if make is staged:
        entry = StageEntry(*(nn.Linear(WIDTH, WIDTH) for _ in range(4)))
        net = ReversibleSequence([*net.blocks, entry]).double()
    try:
        judge(net, batch(3, WIDTH), strategy, step)
    except ReplayError as error:
        assert "would be called without a gradient" in str(error)
        assert used == 0 and strategy in REBUILDING and strategy != "checkpoint"


@pytest.mark.parametrize("strategy", ONE_OUTPUT)
@pytest.mark.parametrize("shared", [False, True])
def test_some_gradients_alone_and_then_those_of_one_output(shared, strategy):
    """What a pass by some tensors has left half done is not taken for a part of the next pass."""

    def step(net, x):
        if shared:
            net.blocks[-1].g = net.blocks[-1].f
        ys = net(x, x.detach().cos().requires_grad_())
        last = list(net.blocks[-1].g.parameters())
        alone = torch.autograd.grad(sum(map(loss_of, ys)), last, retain_graph=True)
        loss_of(ys[0]).backward(retain_graph=True)
        loss_of(ys[1]).backward()
        return {f"alone {i}": d for i, d in enumerate(alone)} | gradients(net, x)

    torch.manual_seed(0)
    judge(sequence(lambda: nn.Linear(WIDTH, WIDTH)), batch(3, WIDTH), strategy, step)


@strategies
def test_a_hook_that_a_hook_of_f_puts_on_a_parameter_is_put_there_once(strategy):
    """F returns its parameter as it is, and a forward hook takes it for an activation."""

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.p = nn.Parameter(torch.randn(3, WIDTH))

        def forward(self, x):
            return self.p

    def step(net, x):
        f = net.blocks[0].f
        f.register_forward_hook(lambda m, args, out: out.register_hook(lambda d: d * 0.5) and None)
        loss_of(net(x)).backward()
        return gradients(net, x)

    torch.manual_seed(0)
    net = sequence(lambda: nn.Linear(WIDTH, WIDTH))
    net.blocks[0].f = Constant().double()
    judge(net, batch(3, 2 * WIDTH), strategy, step)
