"""Text from a source of known entropy: ``markov:<order>``, whose best possible loss is a number.

A symbol is drawn from a distribution that follows from the `order` symbols before it. There are 16 symbols,
each written as one byte. All that is drawn follows from the split and the number of the sequence, so nothing
is stored.

Shapes: B sequences, T tokens each, S symbols, K contexts (S to the power of the order).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from study.data.tokens import IGNORED, TokenBatch, check_numbers
from study.errors import DataError

SYMBOLS = 16
TOKENS = {"train": 1 << 24, "val": 1 << 18, "test": 1 << 18}
"""Tokens of each split."""

_SHARPNESS = 1.5
"""The deviation of the logits of a context: 0 is noise, and a large one nearly certain."""

_SEED = 20_240_229


class MarkovSource:
    """A random chain of a given order and its entropy.

    Args:
        order: How many symbols the next one follows from.

    Attributes:
        entropy_nats_per_token: The mean loss of a model that knows the chain; no model has a lower one.
        bigram_nats_per_token: That of the best model of the last symbol alone.
    """

    def __init__(self, order: int) -> None:
        self.order, contexts = order, SYMBOLS**order
        generator = torch.Generator().manual_seed(_SEED + order)
        logits_KS = torch.randn(contexts, SYMBOLS, generator=generator, dtype=torch.float64) * _SHARPNESS
        self.next_KS = logits_KS.softmax(1)
        self._at_most_KS = self.next_KS.cumsum(1)
        self.share_K = _stationary(self.next_KS)
        self._share_at_most_K = self.share_K.cumsum(0)
        self.entropy_nats_per_token = -float(
            (self.share_K[:, None] * self.next_KS * self.next_KS.log()).sum()
        )
        pairs_SS = (self.share_K[:, None] * self.next_KS).view(-1, SYMBOLS, SYMBOLS).sum(0)
        self.bigram_nats_per_token = -float(
            (pairs_SS * (pairs_SS / pairs_SS.sum(1, keepdim=True)).log()).sum()
        )

    def draw(self, uniform_BN: Tensor) -> Tensor:
        """Draw sequences. Their first numbers draw the contexts that they begin with, as often as the chain
        meets these.

        Args:
            uniform_BN: Numbers in [0, 1), float64.

        Returns:
            Symbols of shape (B, order + N - 1).
        """
        context_B = torch.searchsorted(self._share_at_most_K, uniform_BN[:, 0].contiguous(), right=True)
        context_B = context_B.clamp_max(len(self.share_K) - 1)
        places = SYMBOLS ** torch.arange(self.order - 1, -1, -1)
        columns = list((context_B[:, None] // places % SYMBOLS).unbind(1))
        for step in range(1, uniform_BN.shape[1]):
            symbol_B = (uniform_BN[:, step, None] >= self._at_most_KS[context_B]).sum(1)
            symbol_B = symbol_B.clamp_max(SYMBOLS - 1)
            columns.append(symbol_B)
            context_B = (context_B * SYMBOLS + symbol_B) % len(self.share_K)
        return torch.stack(columns, 1)


class MarkovSplit:
    """Sequences of a chain. Targets that lack a whole context before them are not to be learnt."""

    def __init__(self, source: MarkovSource, split: str, context_length: int) -> None:
        self._source, self._split, self._length = source, list(TOKENS).index(split), context_length
        self._count = TOKENS[split] // context_length

    def __len__(self) -> int:
        """The number of sequences."""
        return self._count

    def batch(self, indices: Tensor) -> TokenBatch:
        """The sequences of these numbers, int64 of shape (B,), on the CPU.

        Returns:
            Tokens, targets and bytes.

        Raises:
            IndexError: A number is below 0, or no smaller than the number of sequences.
        """
        numbers, order = indices.tolist(), self._source.order
        check_numbers(numbers, len(self))
        count = self._length + 2 - order  # numbers for T + 1 symbols
        uniform_BN = torch.empty(len(numbers), count, dtype=torch.float64)
        for row, number in enumerate(numbers):
            generator = torch.Generator().manual_seed(len(TOKENS) * number + self._split)
            torch.rand(count, generator=generator, dtype=torch.float64, out=uniform_BN[row])
        symbols_BT = self._source.draw(uniform_BN)
        tokens_BT, targets_BT = symbols_BT[:, :-1].contiguous(), symbols_BT[:, 1:].clone()
        targets_BT[:, : order - 1] = IGNORED
        learnt = self._length - order + 1
        bytes_B = torch.full((len(numbers),), learnt, dtype=torch.long)
        return TokenBatch(tokens_BT=tokens_BT, targets_BT=targets_BT, bytes_B=bytes_B, document_id=None)


@lru_cache(maxsize=4)
def markov_source(order: int) -> MarkovSource:
    """The chain of an order, which is always the same one."""
    return MarkovSource(order)


def check_context(order: int, context_length: int) -> None:
    """Check that a sequence is longer than a context of the chain and not than a split.

    Raises:
        DataError: It is not.
    """
    longest = min(TOKENS.values())
    if not order <= context_length <= longest:
        raise DataError(
            "data.context_length",
            value=context_length,
            rule=f"must be at least the order {order}, and at most the {longest:,} tokens of a split",
            remedy=f"the nearest is {order if context_length < order else longest}",
        )


def bits(nats: float) -> float:
    """Nats in bits."""
    return nats / math.log(2)


def _stationary(next_KS: Tensor, tolerance: float = 1e-13) -> Tensor:
    """How often each context is met in the long run, float64 of shape (K,).

    A step leads from context (c1 … ck) to (c2 … ck, s). All probabilities are positive, so that the power
    iteration ends at the only answer.

    Returns:
        Shares that add up to 1.

    Raises:
        ArithmeticError: It did not end.
    """
    contexts, symbols = next_KS.shape
    share_K = torch.full((contexts,), 1 / contexts, dtype=torch.float64)
    for _ in range(10_000):
        flow = (share_K[:, None] * next_KS).view(symbols, contexts // symbols, symbols)
        following_K = flow.sum(0).flatten()
        following_K /= following_K.sum()
        if (following_K - share_K).abs().sum() < tolerance:
            return following_K
        share_K = following_K
    raise ArithmeticError("the shares of a chain's contexts did not settle")
