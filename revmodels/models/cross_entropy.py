"""Cross-entropy of the next token, whose logits are never there whole.

The logits of a long context are the largest tensor of a language model: 8 rows of 8,192 tokens and a
vocabulary of 32,000 make 8.4 GB in float32, and their gradient as much again. Here they are computed a chunk
of tokens at a time, once in the forward pass, and again in the backward pass, which sums the gradients in
place. That costs one more product with the output layer, and memory for one chunk.

The naive twin is `cross_entropy`, which has all logits at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from revmodels.errors import DoubleBackwardError

IGNORED = -100
"""A target that counts nowhere, as in `torch.nn.functional.cross_entropy`."""

CHUNK = 1_024
"""Tokens whose logits are there at once."""


class TokenLoss(NamedTuple):
    """A loss as a sum, so that parts of a batch can be added.

    Args:
        total: cross-entropy in nats summed over the tokens that count: a scalar of float32, or float64.
        tokens: how many count: a scalar of int64.
    """

    total: Tensor
    tokens: Tensor

    @property
    def mean(self) -> Tensor:
        """Nats per token; not a number if none counts."""
        return self.total / self.tokens


def mean_loss(output: TokenLoss, targets: Tensor | None = None) -> Tensor:
    """The loss of a language model that was given its targets, for `revmodels.measure.peak_memory`.

    Args:
        output: what the model has returned.
        targets: not used: they are in `output`.

    Returns:
        Nats per token, a scalar.

    Example:
        >>> import revmodels
        >>> model = revmodels.create_model("revgpt_100k")
        >>> tokens = torch.zeros(2, 16, dtype=torch.long)
        >>> use = revmodels.measure.predict_memory(model, ((tokens, tokens), tokens), loss=mean_loss)
        >>> use.input_bytes
        256
    """
    return output.mean


def cross_entropy(hidden: Tensor, head_weight: Tensor, targets: Tensor) -> TokenLoss:
    """The naive twin of `chunked_cross_entropy`: same arguments, same result, all logits at once."""
    logits = _logits(hidden.flatten(0, -2), head_weight, _product_dtype(hidden))
    flat = targets.flatten()
    total = F.cross_entropy(logits, flat, reduction="sum", ignore_index=IGNORED)
    return TokenLoss(total, (flat != IGNORED).sum())


def chunked_cross_entropy(
    hidden: Tensor, head_weight: Tensor, targets: Tensor, *, chunk: int = CHUNK
) -> TokenLoss:
    """Cross-entropy of ``hidden @ head_weight.T`` against `targets`.

    Under autocast the products are in its dtype. The logarithms and sums are in float32 at least.

    Args:
        hidden: (..., d), what the output layer is applied to.
        head_weight: (V, d), of the dtype of `hidden` or, under autocast, of any other.
        targets: (...), int64, tokens or -100 where nothing counts.
        chunk: tokens whose logits are there at once, at least 1. With no more tokens than that there is
            nothing to cut: all logits are kept, and none are computed again.

    Returns:
        The sum over all tokens that count, and their number.

    Raises:
        ValueError: `chunk` is no whole number of at least 1.
        DoubleBackwardError: in the backward pass, if a second derivative is asked for.
    """
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise ValueError(f"chunk: a whole number of tokens of at least 1; received {chunk!r}.")
    if targets.numel() <= chunk:
        return cross_entropy(hidden, head_weight, targets)
    flat = targets.flatten()
    total = _Chunked.apply(hidden.flatten(0, -2), head_weight, flat, chunk, _product_dtype(hidden))
    return TokenLoss(total, (flat != IGNORED).sum())


class _Chunked(torch.autograd.Function):
    """Keeps what it was given, and no logits."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, dtype: torch.dtype
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, targets)
        ctx.settings = chunk, dtype
        with _plain(hidden):
            losses = [
                F.cross_entropy(_logits(h, weight, dtype), t, reduction="sum", ignore_index=IGNORED)
                for h, t in zip(hidden.split(chunk), targets.split(chunk), strict=True)
            ]
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise DoubleBackwardError("a loss in chunks", "Use cross_entropy, which keeps all logits.")
        hidden, weight, targets = ctx.saved_tensors
        chunk, dtype = ctx.settings
        of_hidden, of_weight = ctx.needs_input_grad[:2]
        d_hidden = torch.empty_like(hidden) if of_hidden else None
        d_weight = torch.zeros_like(weight, dtype=_sum_dtype(weight)) if of_weight else None
        with _plain(hidden):
            for start in range(0, targets.numel(), chunk):
                part = slice(start, start + chunk)
                d_logits = _gradient_of_logits(
                    _logits(hidden[part], weight, dtype), targets[part], gradient
                ).to(dtype)
                if d_hidden is not None:
                    d_hidden[part] = d_logits @ weight.to(dtype)
                if d_weight is not None:
                    d_weight += d_logits.T @ hidden[part].to(dtype)
        return d_hidden, None if d_weight is None else d_weight.to(weight.dtype), None, None, None


def _gradient_of_logits(logits: Tensor, targets: Tensor, gradient: Tensor) -> Tensor:
    """``softmax - one-hot`` in the rows that count, zero in others, times the gradient of the sum."""
    counts = targets != IGNORED
    p = logits.softmax(dim=-1)
    index = targets.where(counts, 0)[:, None]
    p.scatter_add_(1, index, p.new_full((1, 1), -1.0).expand_as(index))
    return p.mul_((counts * gradient)[:, None])


def _logits(hidden: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    logits = hidden.to(dtype) @ weight.to(dtype).T
    return logits.to(_sum_dtype(logits))


def _product_dtype(hidden: Tensor) -> torch.dtype:
    kind = hidden.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return hidden.dtype


def _sum_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _plain(x: Tensor) -> torch.autocast:
    """Without autocast, which has been seen to: every product has its dtype."""
    kind = x.device.type if torch.amp.is_autocast_available(x.device.type) else "cpu"
    return torch.autocast(kind, enabled=False)
