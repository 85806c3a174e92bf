"""Layers that `gpt` and `revgpt` share: attention and MLP, each behind its norm, and embedding and head.

Shapes: tokens are (B, T) of int64; features (B, T, d); queries (B, heads, T, features of a head).

Weights start as in GPT-2 (Radford et al. 2019, section 2.3, and its code): normal with standard deviation
0.02, and 0.02 / sqrt(2 L) in the two layers of each of the L blocks whose output is added to a stream, so
that the sum of 2 L outputs is not larger the deeper the network. Other parametrizations have other starts and
factors, see `revmodels.models.parametrization`.
"""

from __future__ import annotations

from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revmodels.models.cross_entropy import CHUNK, TokenLoss, chunked_cross_entropy
from revmodels.models.decoder import LanguageArchitecture
from revmodels.models.parametrization import STD

NORM_EPS = 1e-5
ROTARY_BASE = 10_000.0


def linear(features_in: int, features_out: int, std: float) -> nn.Linear:
    """A linear layer without bias, normal with standard deviation `std`."""
    layer = nn.Linear(features_in, features_out, bias=False)
    with torch.no_grad():
        layer.weight.normal_(0.0, std)
    return layer


def norm(features: int) -> nn.RMSNorm:
    """RMSNorm (Zhang and Sennrich 2019): x / sqrt(mean x^2 + 1e-5), times a gain for each feature."""
    return nn.RMSNorm(features, eps=NORM_EPS)


def rotated(x: Tensor) -> Tensor:
    """Rotate pairs of features by angles that grow with the position (RoFormer, Su et al. 2021).

    The pair (i, i + h/2) of a head of h features turns by ``position · 10000^(-2 i / h)``, so the product of
    a query and a key depends on their distance alone. Angles are computed here and kept nowhere: a buffer
    would lose them on the way over the ``meta`` device, and their precision in ``model.bfloat16()``.

    Args:
        x: (B, heads, T, h) of any floating dtype; its rows are at positions 0 to T - 1.

    Returns:
        The same shape and dtype.
    """
    half = x.shape[-1] // 2
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    exponents = torch.arange(half, dtype=dtype, device=x.device) / half
    positions = torch.arange(x.shape[-2], dtype=dtype, device=x.device)
    angles = positions[:, None] * ROTARY_BASE**-exponents
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Attention(nn.Module):
    """F of a block: norm, then causal self-attention with rotary positions; (B, T, d) to (B, T, d)."""

    def __init__(self, shape: LanguageArchitecture) -> None:
        super().__init__()
        d, self.features = shape.filters[0], shape.head_features
        at = shape.scales
        self.factor, self.added_factor = at.attention_factor, at.added_factor
        self.heads, self.kv_heads = shape.heads, shape.kv_heads
        self.norm = norm(d)
        self.qkv = linear(d, (self.heads + 2 * self.kv_heads) * self.features, at.hidden_std)
        self.q_norm = norm(self.features) if shape.qk_norm else None
        self.k_norm = norm(self.features) if shape.qk_norm else None
        self.out = linear(d, d, at.added_std)

    def forward(self, x: Tensor) -> Tensor:
        """softmax(Q K' times a factor, over what came before) V in each head, projected."""
        batch, length, d = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, length, -1, self.features).transpose(1, 2)
        q, k, v = qkv.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        mixed = F.scaled_dot_product_attention(
            rotated(q),
            rotated(k),
            v,
            is_causal=True,
            enable_gqa=self.kv_heads < self.heads,
            scale=self.factor,
        )
        return _times(self.out(mixed.transpose(1, 2).reshape(batch, length, d)), self.added_factor)


class MLP(nn.Module):
    """G of a block: norm, then each token by itself through hidden features; (B, T, d) to (B, T, d)."""

    def __init__(self, shape: LanguageArchitecture) -> None:
        super().__init__()
        d, at = shape.filters[0], shape.scales
        self.added_factor = at.added_factor
        self.norm = norm(d)
        self.gate = linear(d, shape.hidden, at.hidden_std) if shape.activation == "swiglu" else None
        self.up = linear(d, shape.hidden, at.hidden_std)
        self.down = linear(shape.hidden, d, at.added_std)

    def forward(self, x: Tensor) -> Tensor:
        """``down(silu(gate x) · up x)``, or ``down(gelu(up x))`` with GPT-2's approximation of GELU."""
        x = self.norm(x)
        if self.gate is None:
            hidden = F.gelu(self.up(x), approximate="tanh")
        else:
            hidden = F.silu(self.gate(x)) * self.up(x)
        return _times(self.down(hidden), self.added_factor)


class Head(nn.Module):
    """The last norm and the output layer: (B, T, d) to logits, (B, T, V).

    Attributes:
        chunk: tokens whose logits are there at once when the loss is computed here.
    """

    def __init__(self, shape: LanguageArchitecture, embedding: nn.Embedding) -> None:
        super().__init__()
        self.chunk = CHUNK
        self.logits_factor = shape.scales.logits_factor
        self.norm = norm(shape.filters[0])
        self.output = linear(shape.filters[0], shape.vocabulary, shape.scales.output_std)
        if shape.tied:
            self.output.weight = embedding.weight

    @overload
    def forward(self, x: Tensor) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, targets: Tensor) -> TokenLoss: ...
    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor | TokenLoss:
        """Logits of the token that comes next, or the loss against `targets`, (B, T)."""
        x = _times(self.norm(x), self.logits_factor)
        if targets is None:
            return self.output(x)
        return chunked_cross_entropy(x, self.output.weight, targets, chunk=self.chunk)


def _times(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1.0 else x * factor


def embedding(shape: LanguageArchitecture) -> nn.Embedding:
    """The stem: a vector of d features for each token, normal with standard deviation 0.02."""
    layer = nn.Embedding(shape.vocabulary, shape.filters[0])
    with torch.no_grad():
        layer.weight.normal_(0.0, STD)
    return layer
