"""Reversible vision transformer, Rev-ViT (Mangalam, Fan, Li, Wu, Xiong, Feichtenhofer, Malik, CVPR 2022).

A transformer block is already two residual functions, and section 3.2 of the paper couples them::

    y1 = x1 + Attention(LayerNorm(x2))
    y2 = x2 + MLP(LayerNorm(y1))

Both streams have the full width d and start as the same patch embedding, x1 = x2; in the end they are joined,
normalized, averaged over the patches and classified. All blocks are one `ReversibleSequence`: training stores
the last pair alone.

Shapes: images are (N, C, H, W); tokens (N, T, d) with T = H W / patch^2 patches, row by row.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revmodels.coupling.block import ReversibleBlock
from revmodels.errors import ResolutionError
from revmodels.models.architecture import HEAD_CHANNELS, RevViTArchitecture
from revmodels.models.layers import UnitOptions, truncated_normal_
from revmodels.models.reversible import ReversibleNetwork
from revmodels.precision import Precision
from revmodels.sequence import ReversibleSequence

MLP_RATIO = 4
"""Hidden channels of the MLP, in multiples of d."""


class PatchEmbedding(nn.Module):
    """The stem: a linear map of each patch, and a learned position added to it.

    Args:
        channels_in: channels of the images.
        d: channels of a token.
        patch: pixels along a side of a patch.
        grid: patches along a side of the images the positions are made for; at another size of image they
            are interpolated, as is usual for vision transformers.
    """

    def __init__(self, channels_in: int, d: int, patch: int, grid: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(channels_in, d, patch, patch)
        self.positions = nn.Parameter(torch.empty(1, grid * grid, d))
        self.grid = grid
        truncated_normal_(self.projection.weight, std=0.02)
        nn.init.zeros_(self.projection.bias)  # type: ignore[arg-type]
        truncated_normal_(self.positions, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Return the tokens, (N, T, d), of images, (N, C, H, W).

        Raises:
            ResolutionError: the patch does not divide height and width.
        """
        patch, (height, width) = self.projection.kernel_size[0], images.shape[-2:]
        if height % patch or width % patch:
            raise ResolutionError(
                f"images are cut into patches of {patch} x {patch} pixels, so height and width must be "
                f"multiples of {patch}; received {height} x {width}. Resize them, or choose another patch."
            )
        tokens = self.projection(images).flatten(2).transpose(1, 2)
        return tokens + self._positions(height // patch, width // patch)

    def _positions(self, height: int, width: int) -> Tensor:
        if (height, width) == (self.grid, self.grid):
            return self.positions
        square = self.positions.view(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        resized = F.interpolate(square, (height, width), mode="bicubic", align_corners=False)
        return resized.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """F of a block: layer norm, then self-attention over the patches; (N, T, d) to (N, T, d)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d, eps=1e-6)
        self.qkv = _linear(d, 3 * d)
        self.out = _linear(d, d)
        self.heads = d // HEAD_CHANNELS

    def forward(self, x: Tensor) -> Tensor:
        """softmax(Q K' / sqrt(64)) V in each head, projected."""
        n, t, d = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, self.heads, HEAD_CHANNELS).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d))


class MLP(nn.Sequential):
    """G of a block: layer norm, then each token by itself through a hidden layer; (N, T, d) to (N, T, d)."""

    def __init__(self, d: int) -> None:
        super().__init__(
            nn.LayerNorm(d, eps=1e-6), _linear(d, MLP_RATIO * d), nn.GELU(), _linear(MLP_RATIO * d, d)
        )


class PooledHead(nn.Module):
    """Layer norm of the joined streams, their average over the patches, and a linear classifier."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.classifier = _linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, 2 d) to (N, classes)."""
        return self.classifier(self.norm(x).mean(dim=1))


class RevViT(ReversibleNetwork):
    """A Rev-ViT. Arguments as for `RevNet`; it has no batch norm, so `options` are not used."""

    architecture: RevViTArchitecture

    def __init__(
        self,
        architecture: RevViTArchitecture,
        *,
        num_classes: int,
        in_channels: int,
        width: float,
        precision: Precision | None,
        options: UnitOptions,
    ) -> None:
        d, _ = architecture.channels(width)
        body = ReversibleSequence(
            [ReversibleBlock(Attention(d), MLP(d), split_dim=-1) for _ in range(architecture.depth)],
            split_dim=-1,
        )
        super().__init__(
            architecture,
            stem=nn.Sequential(PatchEmbedding(in_channels, d, architecture.patch_size, architecture.grid)),
            body=body,
            head=nn.Sequential(PooledHead(2 * d, num_classes)),
            num_classes=num_classes,
            width=width,
            precision=precision,
        )

    def transform(self, stream: Tensor) -> Tensor:
        """Two copies of the embedding through the blocks, joined: (N, T, d) to (N, T, 2 d)."""
        return torch.cat(self.body(stream, stream), dim=-1)


def _linear(channels_in: int, channels_out: int) -> nn.Linear:
    layer = nn.Linear(channels_in, channels_out)
    truncated_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer
