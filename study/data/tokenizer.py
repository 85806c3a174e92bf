"""Tokenizers: bytes, or byte-pair encodings that Hugging Face's `tokenizers` trains or reads from a file.

Names: ``bytes``; ``bpe:<size>``, trained on the training split; ``file:<tokenizer.json>``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from study.data.cache import cached
from study.data.documents import Piece, text_of
from study.data.text_fingerprint import tokenizer_file
from study.errors import DataError

DOCUMENT_TOKEN = "<|document|>"
"""The token that begins a document in what is trained here."""

_DOCUMENT_TOKENS = (DOCUMENT_TOKEN, "<|endoftext|>", "<|end_of_text|>", "<|begin_of_text|>", "</s>", "<s>")
"""Those that a tokenizer of others may have. The first one that it has is used; else an id is added."""

TRAINING_BYTES = 1 << 30
"""A byte-pair encoding is trained on the beginning of the training split, up to this size."""


class Tokenizer(Protocol):
    """What turns pieces of text into token ids."""

    vocabulary_size: int
    document_id: int
    length_V: np.ndarray | None
    """Bytes of text of each id; None where they follow from the text around it."""

    def encode(self, pieces: Sequence[Piece]) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """Token ids of each piece, and the bytes of text of each token if there is no `length_V`."""
        ...


class ByteTokenizer:
    """The 256 bytes, and 256 for the beginning of a document. Any encoding of text will do."""

    vocabulary_size, document_id = 257, 256

    def __init__(self) -> None:
        self.length_V: np.ndarray | None = (np.arange(257) < 256).astype(np.uint32)

    def encode(self, pieces: Sequence[Piece]) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """The bytes themselves."""
        return [(np.frombuffer(piece.content, dtype=np.uint8), None) for piece in pieces]


class WordTokenizer:
    """One of Hugging Face's tokenizers, whose text must be UTF-8.

    Args:
        content: The JSON that `tokenizers` writes.
        where: The file, for messages.
    """

    def __init__(self, content: str, where: str) -> None:
        self._tokenizer: Any = _read(content, where)
        # What stands in a text is text, even where it is spelled like a token of the tokenizer's own.
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        values = json.loads(content)
        special = {t["content"]: t["id"] for t in values.get("added_tokens") or () if t.get("special")}
        found = [special[token] for token in _DOCUMENT_TOKENS if token in special]
        # Ids may have gaps: a vocabulary must hold the highest.
        size = max(size, 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values()))
        self.document_id = found[0] if found else size
        self.vocabulary_size = size if found else size + 1
        self.length_V = _lengths(self._tokenizer, values, self.vocabulary_size, self.document_id)

    def encode(self, pieces: Sequence[Piece]) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """Ids, and the bytes of each token, which add up to those of its piece."""
        texts = [text_of(piece) for piece in pieces]
        encode = self._tokenizer.encode_batch if self.length_V is None else self._tokenizer.encode_batch_fast
        found: list[tuple[np.ndarray, np.ndarray | None]] = []
        for piece, text, encoded in zip(pieces, texts, encode(texts, add_special_tokens=False), strict=True):
            ids = np.array(encoded.ids, dtype=np.uint32)
            if len(ids) == 0:
                raise DataError(
                    "data.tokenizer",
                    value=piece.where,
                    rule="the tokenizer must give at least one token for a text",
                    remedy="use a byte-level tokenizer, or leave the document out",
                )
            if self.length_V is None:
                lengths = _lengths_by_offset(text, encoded.offsets)
            else:
                lengths = self.length_V[ids]
            if int(lengths.sum(dtype=np.int64)) != len(piece.content):
                raise DataError(
                    "data.tokenizer",
                    value=piece.where,
                    rule="the tokens of a text must stand for all of its bytes",
                    remedy="use a byte-level tokenizer that changes no text",
                )
            found.append((ids, lengths if self.length_V is None else None))
        return found


def read_tokenizer(name: str, root: str | None) -> Tokenizer:
    """The tokenizer ``bytes`` or ``file:<tokenizer.json>``; a relative path starts at `root`.

    Returns:
        The tokenizer.

    Raises:
        DataError: The file is missing or is no tokenizer.
    """
    if name == "bytes":
        return ByteTokenizer()
    file = tokenizer_file(name, root)
    return WordTokenizer(file.read_text("utf-8"), str(file))


def train_tokenizer(size: int, pieces: Iterable[Piece], *, cache: Path, key: str) -> Tokenizer:
    """Train a byte-pair encoding on the training split, or read the one that was trained before.

    Args:
        size: Ids of the vocabulary. A small corpus may leave some of them without a token.
        pieces: Of all splits; read only if it is to be trained.
        cache: The folder where it is kept.
        key: The hash of all that it follows from.

    Returns:
        The tokenizer.

    Raises:
        DataError: The text is not UTF-8, or the cache cannot be written to.
    """
    entry = cached(cache, key, lambda folder: _train(size, pieces, folder / "tokenizer.json"))
    words = WordTokenizer((entry / "tokenizer.json").read_text("utf-8"), f"bpe:{size}")
    words.vocabulary_size = max(size, words.vocabulary_size)
    return words


def _train(size: int, pieces: Iterable[Piece], file: Path) -> None:
    """Train a byte-level byte-pair encoding as GPT-2's, and write it."""
    from tokenizers import Tokenizer as Words
    from tokenizers import decoders, models, pre_tokenizers, trainers

    words = Words(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[DOCUMENT_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    words.train_from_iterator(_training_texts(pieces), trainer)
    words.save(str(file))


def _training_texts(pieces: Iterable[Piece]) -> Iterator[str]:
    read = 0
    for piece in pieces:
        if piece.split == "train" and read < TRAINING_BYTES:
            read += len(piece.content)
            yield text_of(piece)


def _read(content: str, where: str) -> Any:
    try:
        from tokenizers import Tokenizer as Words
    except ImportError as error:
        raise DataError(
            "data.tokenizer",
            value=where,
            rule="needs Hugging Face's tokenizers",
            remedy="pip install 'revstudy[data]', or use data.tokenizer: bytes",
        ) from error
    try:
        return Words.from_str(content)
    except Exception as error:  # the library raises no class of its own
        raise DataError(
            "data.tokenizer",
            value=where,
            rule="must be a tokenizer.json of Hugging Face's tokenizers",
            remedy=str(error),
        ) from error


def _lengths(tokenizer: Any, content: dict[str, Any], size: int, document_id: int) -> np.ndarray | None:
    """The bytes of each token of a byte-level tokenizer that changes no text; None for all others."""
    if (content.get("decoder") or {}).get("type") != "ByteLevel" or content.get("normalizer"):
        return None
    if _adds_a_space(content.get("pre_tokenizer") or {}):
        return None
    lengths = np.zeros(size, dtype=np.uint32)
    added = {token["id"]: token["content"] for token in content.get("added_tokens") or ()}
    for token, number in tokenizer.get_vocab(with_added_tokens=True).items():
        # A byte is written as one letter, but an added token as itself.
        lengths[number] = len(token.encode()) if number in added else len(token)
    lengths[document_id] = 0  # it stands between texts
    return lengths


def _adds_a_space(step: dict[str, Any]) -> bool:
    steps = step.get("pretokenizers") or [step]
    return any(s.get("type") == "ByteLevel" and s.get("add_prefix_space", True) for s in steps)


def _lengths_by_offset(text: str, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """The bytes from the end of each token to that of the next; what follows the last one is its own."""
    letter_bytes = np.fromiter((len(letter.encode()) for letter in text), dtype=np.int64, count=len(text))
    bytes_before = np.concatenate([[0], letter_bytes.cumsum()])
    ends = np.array([end for _, end in offsets], dtype=np.int64)
    ends = np.maximum.accumulate(ends)
    ends[-1] = len(text)
    return np.diff(bytes_before[ends], prepend=0)
