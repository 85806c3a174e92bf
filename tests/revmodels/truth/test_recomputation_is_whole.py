"""What is recomputed is recomputed to its end: an operation may write to what it has saved.

PyTorch's checkpoint stops as soon as the last tensor has been saved, which is before the operation that
saved it has run. Randomized leaky ReLU saves its noise first, and fills it then.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import set_checkpoint_early_stop

from revmodels.errors import ReplayError
from revmodels.strategies.registry import STRATEGIES, find_strategy
from tests.revmodels.truth.judge import WIDTH, batch, gradients, judge, loss_of, sequence, staged, train

EXACT = sorted(
    name for name in STRATEGIES if find_strategy(name).tolerance == 1e-12 and name not in ("store", "budget")
)
strategies = pytest.mark.parametrize("strategy", [*EXACT, "anchors"])


class Functional(nn.Module):
    """The function, in a module of somebody's own."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return torch.rrelu(self.layer(x), 0.1, 0.5, training=True)


class _WritesAfterSaving(torch.autograd.Function):
    """Saves a tensor of zeros, and writes to it when forward is done: legal, as nothing counts the write."""

    @staticmethod
    def forward(ctx, x):
        mask = torch.zeros_like(x)
        ctx.save_for_backward(mask)
        mask.data.copy_((x > 0).to(x.dtype) * 2 + 1)
        return x * mask

    @staticmethod
    def backward(ctx, d):
        return d * ctx.saved_tensors[0]


class Custom(Functional):
    def forward(self, x):
        return _WritesAfterSaving.apply(self.layer(x))


def last(kind):
    return lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), kind())


MAKE = {
    "layer": last(nn.RReLU),
    "layer in place": last(lambda: nn.RReLU(inplace=True)),
    "function": Functional,
    "function of one's own": Custom,
    "layer in a layer": last(lambda: nn.Sequential(nn.Sequential(nn.RReLU()))),
    "layer after a dropout": last(lambda: nn.Sequential(nn.Dropout(0.3), nn.RReLU())),
}


@strategies
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_the_last_operation_writes_to_what_it_has_saved(make, strategy):
    torch.manual_seed(0)
    if strategy == "selective" and make is MAKE["layer in place"]:
        with pytest.raises(ReplayError, match="unit 2 changes in place what strategy='selective' keeps"):
            judge(sequence(make), batch(3, 2 * WIDTH), strategy)
        return
    judge(sequence(make), batch(3, 2 * WIDTH), strategy)


@strategies
def test_in_a_stage_entry(strategy):
    torch.manual_seed(0)
    judge(staged(MAKE["layer"]), batch(3, 2 * WIDTH), strategy)


@strategies
def test_whatever_the_user_asks_of_checkpoints(strategy):
    def step(net, x):
        with set_checkpoint_early_stop(True):
            loss_of(net(x)).backward()
        return gradients(net, x)

    torch.manual_seed(0)
    judge(sequence(MAKE["layer"]), batch(3, 2 * WIDTH), strategy, step)


def test_known_layers_stop_early():
    """Their last product is not computed again: they write to nothing that they have saved."""

    class Products(TorchDispatchMode):
        """Counts them; no hook sees any module."""

        def __init__(self):
            super().__init__()
            self.count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += func in (torch.ops.aten.addmm.default, torch.ops.aten.mm.default)
            return func(*args, **(kwargs or {}))

    def products(make):
        net, x = sequence(make), batch(3, 2 * WIDTH)
        net.strategy = "checkpoint"
        with Products() as products:
            train(net, x)
        return products.count

    class Watched(nn.Sequential):
        """No known layer."""

    # F and G of three blocks: forward, again, and two products in the backward pass.
    assert products(lambda: Watched(nn.Linear(WIDTH, WIDTH))) == 3 * 8
    assert products(lambda: nn.Linear(WIDTH, WIDTH)) == 3 * 7


@strategies
def test_hooks_on_saved_tensors_that_hand_back_another_layout(strategy):
    def step(net, x):
        with torch.autograd.graph.saved_tensors_hooks(torch.clone, torch.clone):
            y = net(x)
        loss_of(y).backward()
        return gradients(net, x)

    net = sequence(lambda: nn.Linear(WIDTH, WIDTH), dim=-1)
    judge(net, batch(2, 3, 2 * WIDTH), strategy, step)
