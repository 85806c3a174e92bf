"""A corpus of documents encoded once, as streams of token ids in memory or in a cache on disk."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from study.data.bigram import BigramCounts
from study.data.cache import cache_folder, cached
from study.data.documents import Piece, pieces_of
from study.data.text_files import SPLITS, Fractions, TextFile, text_files
from study.data.text_fingerprint import tokenizer_identity
from study.data.tokenizer import ByteTokenizer, Tokenizer, read_tokenizer, train_tokenizer
from study.errors import DataError

RESIDENT_BYTES = 64 << 20
"""A corpus of up to this size that is read as bytes is kept in memory; all others are in the cache."""

LAYOUT = 1
"""Raise it when the same corpus and tokenizer give other tokens, so that what is cached is made anew."""

_BATCH_PIECES, _BATCH_BYTES = 1024, 8 << 20
"""What is encoded at once, by all threads of a tokenizer."""

_LENGTHS = np.dtype(np.uint32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """A corpus as token ids.

    Attributes:
        vocabulary_size, document_id: Of its tokenizer.
        streams: Token ids of each split, shape (N,).
        length_V: Bytes of text of each id; None where an id does not say it.
        lengths: Bytes of text of each token of each split, shape (N,), where there is no `length_V`.
        pairs: How often each byte follows each other one in each split, shape (257, 257).
    """

    vocabulary_size: int
    document_id: int
    streams: Mapping[str, np.ndarray]
    length_V: np.ndarray | None
    lengths: Mapping[str, np.ndarray]
    pairs: Mapping[str, np.ndarray]


@lru_cache(maxsize=4)
def encoded_corpus(
    name: str, tokenizer: str, root: str | None, fractions: Fractions, identity: str
) -> Corpus:
    """Encode a corpus, or return it as it was encoded before, by any process.

    Args:
        name: ``stdlib`` or ``text:<path>``.
        tokenizer: As `study.data.text.load_text` takes it.
        root: Where relative paths start.
        fractions: The shares that are held out.
        identity: Of the contents, for the key of the cache.

    Returns:
        The streams of its splits.

    Raises:
        DataError: A file is not text, a split is empty, or the tokenizer cannot be read.
    """
    files = text_files(name, root)
    if tokenizer == "bytes" and sum(f.path.stat().st_size for f in files) <= RESIDENT_BYTES:
        return _in_memory(files, fractions, name)
    cache = cache_folder(root)
    parts = f"{identity}/{tokenizer_identity(tokenizer, root)}/{fractions.val}/{fractions.test}/{LAYOUT}"
    key = hashlib.sha256(parts.encode()).hexdigest()[:32]
    words: Tokenizer
    if tokenizer.startswith("bpe:"):
        words = train_tokenizer(
            int(tokenizer.partition(":")[2]),
            pieces_of(files, fractions),
            cache=cache,
            key=f"tokenizer-{key}",
        )
    else:
        words = read_tokenizer(tokenizer, root)

    def write(folder: Path) -> None:
        with ExitStack() as stack:
            outputs = {part: stack.enter_context((folder / part).open("wb")) for part in _parts(words)}
            pairs = _write(files, fractions, words, outputs, name)
        np.save(folder / "pairs.npy", pairs)

    entry = cached(cache, f"tokens-{key}", write)
    arrays = {part: np.memmap(entry / part, _kind(part, words), "r") for part in _parts(words)}
    return _corpus(words, arrays, np.load(entry / "pairs.npy"))


def _in_memory(files: list[TextFile], fractions: Fractions, name: str) -> Corpus:
    words = ByteTokenizer()
    outputs: dict[str, BinaryIO] = {part: io.BytesIO() for part in _parts(words)}
    pairs = _write(files, fractions, words, outputs, name)
    arrays = {part: np.frombuffer(stream.getbuffer(), _kind(part, words)) for part, stream in outputs.items()}  # type: ignore[attr-defined]
    return _corpus(words, arrays, pairs)


def _corpus(words: Tokenizer, arrays: Mapping[str, np.ndarray], pairs: np.ndarray) -> Corpus:
    return Corpus(
        vocabulary_size=words.vocabulary_size,
        document_id=words.document_id,
        streams={split: arrays[split] for split in SPLITS},
        length_V=words.length_V,
        lengths={split: arrays[_lengths_of(split)] for split in SPLITS if _lengths_of(split) in arrays},
        pairs=dict(zip(SPLITS, pairs, strict=True)),
    )


def _parts(words: Tokenizer) -> list[str]:
    """What a corpus consists of: token ids by split, and their bytes where ids do not say them."""
    return [*SPLITS, *(_lengths_of(split) for split in SPLITS if words.length_V is None)]


def _lengths_of(split: str) -> str:
    return f"{split}-bytes"


def _kind(part: str, words: Tokenizer) -> np.dtype:
    if part not in SPLITS:
        return _LENGTHS
    return np.dtype(np.uint16 if words.vocabulary_size <= 1 << 16 else np.uint32)


def _write(
    files: list[TextFile],
    fractions: Fractions,
    words: Tokenizer,
    outputs: Mapping[str, BinaryIO],
    name: str,
) -> np.ndarray:
    """Write all streams, a document token before each document and after the last.

    Returns:
        The counts of pairs of bytes by split, of shape (3, 257, 257).

    Raises:
        DataError: A split is empty.
    """
    counts = {split: BigramCounts() for split in SPLITS}
    documents = dict.fromkeys(SPLITS, 0)

    def put(split: str, ids: np.ndarray, lengths: np.ndarray | None) -> None:
        outputs[split].write(ids.astype(_kind(split, words)).tobytes())
        if words.length_V is None and lengths is not None:
            outputs[_lengths_of(split)].write(lengths.astype(_LENGTHS).tobytes())

    boundary, nothing = np.array([words.document_id]), np.array([0])
    for pieces in _batches(pieces_of(files, fractions)):
        for piece, (ids, lengths) in zip(pieces, words.encode(pieces), strict=True):
            if piece.starts:
                put(piece.split, boundary, nothing)
                documents[piece.split] += 1
            put(piece.split, ids, lengths)
            counts[piece.split].add(piece.content, starts=piece.starts)
    for split in SPLITS:
        put(split, boundary, nothing)
        counts[split].end()
    empty = [split for split in SPLITS if not documents[split]]
    if empty:
        raise DataError(
            "data.name",
            value=name,
            rule=f"each split must hold text, and of {sum(documents.values())} documents none is for "
            f"{' and '.join(empty)}",
            remedy="name the splits train, val and test, or give more documents",
        )
    return np.stack([counts[split].pairs for split in SPLITS])


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece.content)
        if len(batch) == _BATCH_PIECES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
