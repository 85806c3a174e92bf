"""What the language models share: tokens in, logits or a loss out."""

from __future__ import annotations

from functools import partial
from typing import overload

from torch import Tensor

from revmodels.errors import LanguageError
from revmodels.models.base import ResidualNetwork
from revmodels.models.cross_entropy import TokenLoss
from revmodels.models.decoder import LanguageArchitecture
from revmodels.models.decoder_layers import Head


class LanguageModel(ResidualNetwork):
    """Base of the language models. Their parts are those of `ResidualNetwork`: stem, body and head."""

    architecture: LanguageArchitecture
    head: Head

    @property
    def vocab_size(self) -> int:
        """Tokens that it knows."""
        return self.architecture.vocabulary

    @property
    def context_length(self) -> int:
        """The longest row of tokens that it takes."""
        return self.architecture.context

    @overload
    def forward(self, tokens: Tensor) -> Tensor: ...
    @overload
    def forward(self, tokens: Tensor, targets: Tensor) -> TokenLoss: ...
    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor | TokenLoss:
        """Logits of what comes next, or the loss against it.

        Args:
            tokens: (B, T) of int64, below `vocab_size`.
            targets: (B, T) of int64: the token that comes after each, or -100 where nothing counts. With them
                the logits of a long context are never there whole, see `revmodels.models.cross_entropy`.

        Returns:
            Logits of shape (B, T, V), in the dtype of the parameters; or the sum of the loss and the number
            of tokens.

        Raises:
            LanguageError: tokens of another shape or dtype, a row longer than the context, or targets of
                another shape than tokens.
        """
        if targets is not None:
            _check_targets(tokens, targets)
        hidden = self.transform(self.start(tokens))
        if targets is None:
            return self.precision.run(self.head, hidden).to(self.precision.parameter_dtype)
        return self.precision.run(partial(self.head, targets=targets), hidden)

    def start(self, images: Tensor) -> Tensor:
        """Embed tokens.

        Args:
            images: tokens, (B, T) of int64.

        Returns:
            (B, T, d), in the dtype of the stream.

        Raises:
            LanguageError: tokens of another shape or dtype, or a row longer than the context.
        """
        _check_tokens(images, self.context_length)
        return self.stem(images).to(self.precision.stream_dtype)


def _check_tokens(tokens: Tensor, context: int) -> None:
    if tokens.dim() != 2 or tokens.is_floating_point() or tokens.is_complex():
        raise LanguageError(
            f"tokens: whole numbers of shape (batch, length); received {tokens.dtype} of shape "
            f"{tuple(tokens.shape)}. Give one row of token ids for each text."
        )
    if tokens.shape[1] > context:
        raise LanguageError(
            f"tokens: this model takes rows of at most {context} tokens; received {tokens.shape[1]}. Cut "
            "them, or build it with a larger context_length."
        )


def _check_targets(tokens: Tensor, targets: Tensor) -> None:
    if targets.shape != tokens.shape:
        raise LanguageError(
            f"targets: one for each token, so of shape {tuple(tokens.shape)}; received shape "
            f"{tuple(targets.shape)}. Give the tokens moved by one position."
        )
