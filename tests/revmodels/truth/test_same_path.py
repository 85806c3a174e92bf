"""Forward pass and replay take the same path, whatever a module asks PyTorch about gradients."""

import pytest
import torch
from torch import nn

from revmodels import ReversibleBlock, ReversibleSequence
from tests.revmodels.truth.judge import WIDTH, batch, gradients, judge, loss_of, put, sequence, strategies

CHANNELS = 8


def encoder():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(CHANNELS, 2, 16, 0.0, batch_first=True)
            self.inner = nn.TransformerEncoder(layer, 2, enable_nested_tensor=True)
            self.register_buffer("padding", torch.tensor([[False] * 3 + [True] * 2, [False] * 5]))

        def forward(self, x):
            return self.inner(x, src_key_padding_mask=self.padding)

    return Encoder()


class AsksForGrad(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x):
        return self.layer(x) if torch.is_grad_enabled() else self.layer(x) * 3


class AsksForNothing(AsksForGrad):
    def forward(self, x):
        return self.layer(x)


class AsksTheInput(AsksForGrad):
    def forward(self, x):
        return self.layer(x) if x.requires_grad else self.layer(x) * 3


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(CHANNELS, 2, batch_first=True)

    def forward(self, x):
        return self.inner(x, x, x)[0]


@strategies
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", [encoder, AsksForGrad, AsksTheInput, Attention])
def test_as_in_stored_mode(make, training, strategy):
    torch.manual_seed(0)
    blocks = [ReversibleBlock(make(), make(), split_dim=2) for _ in range(3)]
    net = ReversibleSequence(blocks, split_dim=2).double().train(training)
    judge(net, batch(2, 5, 2 * CHANNELS), strategy)


class Island(nn.Module):
    """Full precision in the midst of autocast."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            return self.last(torch.tanh(self.first(x.float())))


def _bf16(enabled):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)


@strategies
@pytest.mark.parametrize(("make", "forward"), [(AsksForNothing, False), (Island, True)])
def test_differentiated_under_the_autocast_of_the_caller(make, forward, strategy):
    """A product that one side rounds to bfloat16 and the other does not is off by a thousandth and more."""

    def gradient(strategy, backward):
        torch.manual_seed(0)
        blocks = [ReversibleBlock(make(), make(), split_dim=1) for _ in range(3)]
        net = put(ReversibleSequence(blocks, split_dim=1), strategy)
        x = batch(16, 2 * CHANNELS).detach().float().requires_grad_()
        with _bf16(forward):
            out = net(x)
        with _bf16(backward):
            out.float().square().mean().backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()])

    def off(a, b):
        return ((a - b).norm() / b.norm()).item()

    for backward in (False, True):
        assert off(gradient(strategy, backward), gradient("store", backward)) < 5e-4
    assert off(gradient("store", True), gradient("store", False)) > 1e-3


@strategies
@pytest.mark.parametrize("count", [1, 2])
def test_instance_norm_of_images_in_channels_last(count, strategy):
    """With a single image, PyTorch's own derivative is wrong for a gradient in that layout."""

    def step(net, x):
        y = net(x.contiguous(memory_format=torch.channels_last))
        loss_of(y.contiguous(memory_format=torch.channels_last)).backward()
        return gradients(net, x)

    net = sequence(lambda: nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1), nn.InstanceNorm2d(WIDTH, affine=True)))
    judge(net, batch(count, 2 * WIDTH, 4, 4), strategy, step)
