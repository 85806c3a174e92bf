"""A reversible transformer language model: its blocks' activations are rebuilt in the backward pass.

The two functions of a transformer block are coupled over two streams (Reformer, Kitaev, Kaiser and Levskaya,
ICLR 2020, section 3)::

    y1 = x1 + Attention(RMSNorm(x2))
    y2 = x2 + MLP(RMSNorm(y1))

Both streams have the full width d and start as the token embedding. So a block has the parameters of a
conventional one, and `revgpt` those of its twin `gpt`, which makes the same numbers of them from the same
seed. In the end the head reads the *mean* of the two streams. The norm in front of the output layer makes
mean and sum the same but for its epsilon. The mean has the scale of the twin's one stream: where the blocks
add nothing it is the embedding itself. Joining the streams side by side would need a wider head than the
twin's. Other couplings may be set, see `revmodels.coupling.linear`. Where one of them makes the pair (state
before, state) of one stream, the head reads the state: with BDIA, `revgpt` in evaluation mode is its twin.
"""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor

from revmodels.coupling.block import ReversibleBlock
from revmodels.models.cross_entropy import TokenLoss
from revmodels.models.decoder import LanguageArchitecture
from revmodels.models.decoder_layers import MLP, Attention, Head, embedding
from revmodels.models.language import LanguageModel
from revmodels.models.reversible import ReversibleNetwork
from revmodels.precision import Precision
from revmodels.sequence import ReversibleSequence


class RevGPT(LanguageModel, ReversibleNetwork):
    """A reversible language model.

    Args:
        architecture: its shape.
        width: multiplier on the preset's heads; see `LanguageArchitecture.at_width`.
        precision: arithmetic and stream dtype; None follows the dtype of the parameters.
    """

    def __init__(
        self, architecture: LanguageArchitecture, *, width: float, precision: Precision | None
    ) -> None:
        shape = architecture.at_width(width)
        stem = embedding(shape)
        body = ReversibleSequence(
            [ReversibleBlock(Attention(shape), MLP(shape), split_dim=-1) for _ in range(architecture.depth)],
            split_dim=-1,
        )
        super().__init__(
            architecture,
            stem=stem,
            body=body,
            head=Head(shape, stem),
            num_classes=shape.vocabulary,
            width=width,
            precision=precision,
        )

    @overload
    def forward(self, tokens: Tensor) -> Tensor: ...
    @overload
    def forward(self, tokens: Tensor, targets: Tensor) -> TokenLoss: ...
    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor | TokenLoss:
        """As for `LanguageModel.forward`; a plan for a memory budget counts the loss too."""
        inputs = (tokens,) if targets is None else (tokens, targets)
        if torch.is_grad_enabled():
            self.body.plan_for(self, *inputs)
        return super().forward(*inputs)

    def features(self, images: Tensor) -> Tensor:
        """What the head reads: (B, T) of int64 to (B, T, d)."""
        if torch.is_grad_enabled():
            self.body.plan_for(self, images)
        return super().features(images)

    def transform(self, stream: Tensor) -> Tensor:
        """Two copies of the embedding through the blocks, and what the head reads: (B, T, d) to the same."""
        y1, y2 = self.body(stream, stream)
        last = self.body.blocks[-1]
        assert isinstance(last, ReversibleBlock)
        return y2 if last.rule.steps_one_state else (y1 + y2) / 2
