"""A conventional transformer language model, the stored twin of `revmodels.models.revgpt`.

A block adds twice to one stream (pre-norm, as GPT-2)::

    y = x + Attention(RMSNorm(x))
    z = y + MLP(RMSNorm(y))
"""

from __future__ import annotations

from torch import Tensor, nn

from revmodels.models.decoder import LanguageArchitecture
from revmodels.models.decoder_layers import MLP, Attention, Head, embedding
from revmodels.models.language import LanguageModel
from revmodels.models.stored import StoredNetwork
from revmodels.precision import Precision


class TransformerBlock(nn.Module):
    """Attention, then an MLP, each added to the stream."""

    def __init__(self, f: nn.Module, g: nn.Module) -> None:
        super().__init__()
        self.f = f
        self.g = g
        self.precision = Precision()

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, d) to the same, in the dtype of `x`."""
        x = x + self.precision.run(self.f, x).to(x.dtype)
        return x + self.precision.run(self.g, x).to(x.dtype)


class GPT(LanguageModel, StoredNetwork):
    """A conventional language model; arguments as for `revmodels.models.revgpt.RevGPT`."""

    def __init__(
        self, architecture: LanguageArchitecture, *, width: float, precision: Precision | None
    ) -> None:
        shape = architecture.at_width(width)
        stem = embedding(shape)
        super().__init__(
            architecture,
            stem=stem,
            body=nn.ModuleList(
                TransformerBlock(Attention(shape), MLP(shape)) for _ in range(architecture.depth)
            ),
            head=Head(shape, stem),
            num_classes=shape.vocabulary,
            width=width,
            precision=precision,
        )
