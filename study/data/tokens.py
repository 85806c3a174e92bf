"""Sequences of tokens, packed from a stream of documents: what every source of text hands to a trial.

A stream is ``D doc D doc … D``: every document begins after a document token D and ends at the next one. The
stream is cut into sequences of T tokens; the target of a token is the one after it, so that every token of
the stream but the first is a target exactly once, wherever the cuts fall.

Shapes: B sequences of a batch, T tokens each, N tokens of a stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from study.errors import DataError

IGNORED = -100
"""The target where nothing is to be learnt, as in `torch.nn.functional.cross_entropy`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenBatch:
    """Sequences and what is to be predicted in them.

    Attributes:
        tokens_BT: Token ids, int64.
        targets_BT: The token after each one, int64; `IGNORED` where nothing is to be learnt.
        bytes_B: Bytes of text that the targets of each sequence stand for, int64. The end of a document is a
            target that stands for none.
        document_id: The token that begins a document, or None where the source marks none.
    """

    tokens_BT: Tensor
    targets_BT: Tensor
    bytes_B: Tensor
    document_id: int | None

    @property
    def segments_BT(self) -> Tensor:
        """Which document of its sequence a token belongs to, counted from 0: int64 of shape (B, T).

        A model that must not look across documents attends only where two segments are equal.
        """
        if self.document_id is None:
            return torch.zeros_like(self.tokens_BT)
        starts_BT = self.tokens_BT == self.document_id
        starts_BT[:, 0] = False  # the sequence itself begins segment 0
        return starts_BT.cumsum(1)


class TokenSplit(Protocol):
    """One split of a text: sequences that are asked for by number."""

    def __len__(self) -> int:
        """The number of packed sequences."""
        ...

    def batch(self, indices: Tensor) -> TokenBatch:
        """The sequences of these numbers, int64 of shape (B,), on the CPU. It follows from them alone.

        Raises:
            IndexError: A number is below 0, or no smaller than the number of sequences.
        """
        ...


class PackedTokens:
    """Sequences cut from a stream in memory or in a memory-mapped file; only those asked for are read.

    Args:
        stream_N: Token ids of any unsigned type.
        context_length: T.
        document_id: The token that begins a document, or None.
        length_V: Bytes of text of each token id.
        length_N: Bytes of text of each token of the stream, where an id does not say them. With neither of
            both it is not known how much text a token is, and no bytes are counted.
    """

    def __init__(
        self,
        stream_N: np.ndarray,
        *,
        context_length: int,
        document_id: int | None,
        length_V: np.ndarray | None = None,
        length_N: np.ndarray | None = None,
    ) -> None:
        self._stream_N, self._length_V, self._length_N = stream_N, length_V, length_N
        self._length, self._document_id = context_length, document_id

    @property
    def tokens(self) -> int:
        """Targets of the split: all tokens of the stream but the first."""
        return len(self._stream_N) - 1

    def __len__(self) -> int:
        """The number of sequences; the last one may be shorter, and what it lacks is not to be learnt."""
        return -(-self.tokens // self._length)

    def batch(self, indices: Tensor) -> TokenBatch:
        """The sequences of these numbers, int64 of shape (B,), on the CPU.

        Returns:
            Tokens, targets and bytes.

        Raises:
            IndexError: A number is below 0, or no smaller than the number of sequences.
        """
        numbers = indices.tolist()
        check_numbers(numbers, len(self))
        length = self._length
        shape = (len(numbers), length)
        tokens_BT = np.full(shape, self._document_id or 0, dtype=np.int64)
        targets_BT = np.full(shape, IGNORED, dtype=np.int64)
        bytes_B = np.zeros(len(numbers), dtype=np.int64)
        for row, number in enumerate(numbers):
            start = number * length
            part = self._stream_N[start : start + length + 1]
            count = len(part) - 1
            tokens_BT[row, :count] = part[:-1]
            targets_BT[row, :count] = part[1:]
            if self._length_N is not None:
                bytes_B[row] = self._length_N[start + 1 : start + 1 + count].sum(dtype=np.int64)
            elif self._length_V is not None:
                bytes_B[row] = self._length_V[part[1:]].sum(dtype=np.int64)
        return TokenBatch(
            tokens_BT=torch.from_numpy(tokens_BT),
            targets_BT=torch.from_numpy(targets_BT),
            bytes_B=torch.from_numpy(bytes_B),
            document_id=self._document_id,
        )


def check_numbers(numbers: list[int], count: int) -> None:
    """Check the numbers of sequences that are asked for.

    Raises:
        IndexError: One is below 0, or no smaller than `count`.
    """
    if numbers and not 0 <= min(numbers) <= max(numbers) < count:
        raise IndexError(
            f"sequences are numbered from 0 to {count - 1}; received {min(numbers)} to {max(numbers)}"
        )


def check_length(split: str, tokens: int, context_length: int) -> None:
    """Check that a split fills at least one sequence.

    Raises:
        DataError: It holds fewer tokens than the context.
    """
    if tokens < context_length:
        raise DataError(
            "data.context_length",
            value=context_length,
            rule=f"the {split} split holds {tokens:,} tokens, which is less than one sequence",
            remedy=f"at most {tokens}" if tokens > 0 else "give the split text",
        )
