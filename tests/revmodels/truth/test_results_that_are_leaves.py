"""F and G may return a tensor as they hold it: it gets its gradient, although no operation has made it."""

import pytest
import torch
from torch import nn

from revmodels import ReversibleBlock, ReversibleSequence
from tests.revmodels.truth.judge import WIDTH, batch, gradients, judge, loss_of, strategies

BATCH = 3


def _numbers():
    return torch.linspace(-1, 1, BATCH * WIDTH, dtype=torch.float64).reshape(BATCH, WIDTH)


class ReturnsAParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.held = nn.Parameter(_numbers())

    def forward(self, x):
        return self.held


class ReturnsAnAttribute(ReturnsAParameter):
    def __init__(self):
        nn.Module.__init__(self)
        self.held = _numbers().requires_grad_()


class ReturnsABuffer(ReturnsAParameter):
    def __init__(self):
        nn.Module.__init__(self)
        self.register_buffer("held", _numbers().requires_grad_())


@strategies
@pytest.mark.parametrize("kind", [ReturnsAParameter, ReturnsAnAttribute, ReturnsABuffer])
def test_a_tensor_that_is_the_result(kind, strategy):
    def step(net, x):
        loss_of(net(x)).backward()
        held = {f"held {i}": unit.f.held.grad for i, unit in enumerate(net.blocks)}
        assert all(gradient is not None for gradient in held.values())
        return held | gradients(net, x)

    torch.manual_seed(0)
    blocks = [ReversibleBlock(kind(), nn.Linear(WIDTH, WIDTH)) for _ in range(3)]
    judge(ReversibleSequence(blocks).double(), batch(BATCH, 2 * WIDTH), strategy, step)
