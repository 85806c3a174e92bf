"""Streams of complex numbers: products are conjugated in their gradients."""

import pytest
import torch
from torch import nn

from revmodels import ReversibleBlock, ReversibleSequence
from tests.revmodels.truth.judge import WIDTH, judge, strategies

KIND = torch.complex128


class Squash(nn.Module):
    def forward(self, x):
        return x * 0.3 + x * x.abs() * 0.1


LAYERS = {
    "linear": (lambda: nn.Linear(WIDTH, WIDTH, dtype=KIND), (3, 2 * WIDTH)),
    "linear without bias": (lambda: nn.Linear(WIDTH, WIDTH, bias=False, dtype=KIND), (3, 2 * WIDTH)),
    "conv1d": (lambda: nn.Conv1d(WIDTH, WIDTH, 3, padding=1, dtype=KIND), (2, 2 * WIDTH, 5)),
    "conv2d": (lambda: nn.Conv2d(WIDTH, WIDTH, 3, padding=1, dtype=KIND), (2, 2 * WIDTH, 3, 3)),
}


@strategies
@pytest.mark.parametrize("last", ["layer", "function"])
@pytest.mark.parametrize("kind", LAYERS)
def test_gradients(kind, last, strategy):
    make, shape = LAYERS[kind]
    torch.manual_seed(0)

    def residual():
        return nn.Sequential(Squash(), make()) if last == "layer" else nn.Sequential(make(), Squash())

    net = ReversibleSequence([ReversibleBlock(residual(), residual()) for _ in range(3)])
    x = torch.randn(shape, dtype=KIND, generator=torch.Generator().manual_seed(1)).requires_grad_()
    judge(net, x, strategy)


@strategies
def test_a_complex_layer_between_real_streams(strategy):
    class Fourier(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Sequential(nn.Identity(), nn.Linear(WIDTH, WIDTH, dtype=KIND))

        def forward(self, x):
            return self.mix(torch.fft.fft(x)).real

    torch.manual_seed(0)
    net = ReversibleSequence([ReversibleBlock(Fourier(), Fourier()) for _ in range(3)])
    judge(net, torch.randn(3, 2 * WIDTH, dtype=torch.float64, requires_grad=True), strategy)
