"""Forward pass and replay take the same path, whatever a module asks PyTorch about gradients."""

import pytest
import torch
from torch import nn

from revmodels import ReversibleBlock, ReversibleSequence
from tests.revmodels.truth.judge import batch, judge, strategies

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
