"""A bigram count model of bytes: what a language model of any size has to beat. It imports no torch.

Symbols are the 256 bytes and the end of a document, which also stands before its first byte. With n(a, b)
how often b follows a in the training split, n(a) its sum over b, and T(a) the number of different symbols
that follow a, the model is that of Witten and Bell (1991, https://doi.org/10.1109/18.87000, method C):

    P(b | a) = (n(a, b) + T(a) P(b)) / (n(a) + T(a)),    P(b) = (n(b) + 1) / (N + 257).
"""

from __future__ import annotations

import numpy as np

SYMBOLS = 257
DOCUMENT = 256
"""The symbol before and after each document."""


class BigramCounts:
    """How often each symbol follows each other one, counted piece by piece."""

    def __init__(self) -> None:
        self.pairs = np.zeros((SYMBOLS, SYMBOLS), dtype=np.int64)
        self._last: int | None = None

    def add(self, content: bytes, *, starts: bool) -> None:
        """Count a piece, which begins a document if it `starts` one."""
        if starts:
            self.end()
        if self._last is None:
            self._last = DOCUMENT
        symbols = np.empty(len(content) + 1, dtype=np.int64)
        symbols[0], symbols[1:] = self._last, np.frombuffer(content, dtype=np.uint8)
        self.pairs += pairs_of_stream(symbols)
        self._last = int(symbols[-1])

    def end(self) -> None:
        """Count the end of the last document."""
        if self._last is not None:
            self.pairs[self._last, DOCUMENT] += 1
            self._last = None


def pairs_of_stream(stream_N: np.ndarray) -> np.ndarray:
    """Counts of a stream of bytes and of `DOCUMENT`, of shape (257, 257), read in chunks."""
    pairs = np.zeros(SYMBOLS**2, dtype=np.int64)
    for start in range(0, len(stream_N) - 1, 1 << 20):
        symbols = stream_N[start : start + (1 << 20) + 1].astype(np.int64)
        pairs += np.bincount(symbols[:-1] * SYMBOLS + symbols[1:], minlength=SYMBOLS**2)
    return pairs.reshape(SYMBOLS, SYMBOLS)


def bits_per_byte(train: np.ndarray, held_out: np.ndarray) -> float:
    """What the model of the training split needs for the text that is held out, ends of documents with it.

    Args:
        train: Counts of the training split, of shape (257, 257).
        held_out: Counts of the other split.

    Returns:
        Bits for each byte of text. NaN where the other split holds no text.
    """
    of_symbol = train.sum(0)
    prior = (of_symbol + 1) / (of_symbol.sum() + SYMBOLS)
    followers = (train > 0).sum(1, keepdims=True)
    before = train.sum(1, keepdims=True)
    weight = np.where(before + followers == 0, 1, followers)  # a symbol never seen: the prior alone
    probability = (train + weight * prior) / (before + weight)
    size = held_out[:, :DOCUMENT].sum()
    return float(-(held_out * np.log2(probability)).sum() / size) if size else float("nan")
