"""Residual functions of several kinds, and what the tests do with them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from revmodels import ReversibleBlock, ReversibleSequence
from revmodels.models.layers import UnitOptions, residual_function

CHANNELS = 8


class Attention(nn.Module):
    """Pre-norm self-attention over (batch, tokens, channels)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        return self.attention(h, h, h, need_weights=False)[0]


def conv_basic() -> nn.Module:
    return residual_function(CHANNELS, CHANNELS, 1, UnitOptions(bottleneck=False))


def conv_bottleneck() -> nn.Module:
    return residual_function(CHANNELS, CHANNELS, 1, UnitOptions(bottleneck=True))


def mlp() -> nn.Module:
    return nn.Sequential(nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, 16), nn.GELU(), nn.Linear(16, CHANNELS))


def mlp_dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(CHANNELS, 16), nn.Dropout(0.3), nn.Tanh(), nn.Linear(16, CHANNELS))


def attention() -> nn.Module:
    return Attention(CHANNELS)


KINDS = {
    "conv_basic": conv_basic,
    "conv_bottleneck": conv_bottleneck,
    "mlp": mlp,
    "mlp_dropout": mlp_dropout,
    "attention": attention,
}


def make_sequence(kind: str, depth: int, strategy: str = "reverse") -> ReversibleSequence:
    """`depth` blocks of one kind in float64; the streams are halves of dimension `split_dim`."""
    make = KINDS[kind]
    blocks = [ReversibleBlock(make(), make(), split_dim=split_dim(kind)) for _ in range(depth)]
    return ReversibleSequence(blocks, strategy, split_dim=split_dim(kind)).double()


def split_dim(kind: str) -> int:
    return 1 if kind.startswith("conv") else 2


def make_input(kind: str, batch: int = 4, *, requires_grad: bool = True) -> Tensor:
    shape = (batch, 2 * CHANNELS, 6, 6) if kind.startswith("conv") else (batch, 5, 2 * CHANNELS)
    return torch.randn(shape, dtype=torch.float64, requires_grad=requires_grad)


def gradients(
    net: nn.Module, strategy: str, x: Tensor, seed: int = 1
) -> tuple[Tensor, dict[str, Tensor | None], dict[str, Tensor], Tensor]:
    """Output, gradients by name (the input's is ``input``), buffers and generator state after one step.

    The network's buffers are put back, so that calls can be compared.
    """
    net.strategy = strategy
    before = {name: b.clone() for name, b in net.named_buffers()}
    torch.manual_seed(seed)
    out = net(x)
    inputs = {name: p for name, p in net.named_parameters() if p.requires_grad}
    if x.requires_grad:
        inputs["input"] = x
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    found = torch.autograd.grad(
        (out * weights).sum() + out.square().mean(), list(inputs.values()), allow_unused=True
    )
    after = {name: b.clone() for name, b in net.named_buffers()}
    for name, b in net.named_buffers():
        b.copy_(before[name])
    return out.detach(), dict(zip(inputs, found, strict=True)), after, torch.get_rng_state()


def assert_equal_gradients(
    a: dict[str, Tensor | None], b: dict[str, Tensor | None], tolerance: float
) -> None:
    assert a.keys() == b.keys()
    for name, exact in a.items():
        found = b[name]
        if exact is None or found is None:
            assert exact is None and found is None, name
            continue
        error = (found - exact).norm() / exact.norm().clamp_min(1e-300)
        assert error <= tolerance, f"{name}: relative error {error:.2e} exceeds {tolerance:.0e}"
