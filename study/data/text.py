"""Text for language models, as packed sequences of tokens, behind one function: `load_text`.

Names: ``stdlib``, the Python files of the running Python's library; ``text:<path>``, files, folders, Parquet
and JSON lines; ``tokens:<path>``, token ids that others have written; ``markov:<order>``, draws from a source
of known entropy. Memory does not grow with the corpus: what is large is memory-mapped.

Validation and test depend on the corpus alone and not on a trial's seed, so trials that differ in seed share
them. Which document is in which split: see `study.data.text_files`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from study.data.bigram import bits_per_byte, pairs_of_stream
from study.data.encoding import encoded_corpus
from study.data.markov import SYMBOLS, MarkovSplit, bits, check_context, markov_source
from study.data.text_files import SPLITS, Fractions
from study.data.text_fingerprint import order_of, text_fingerprint
from study.data.token_files import open_tokens
from study.data.tokenizer import ByteTokenizer, Tokenizer, read_tokenizer
from study.data.tokens import PackedTokens, TokenSplit, check_length
from study.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class TextData:
    """A text, ready for training.

    Attributes:
        name: As the study file gives it.
        vocabulary_size: Every token id is below it.
        context_length: Tokens of a sequence.
        train, val, test: The three splits; they share no document.
        fingerprint: What of corpus and tokenizer is part of a trial's identity.
        document_id: The token that begins a document, or None where the source marks none.
        knows_bytes: Whether it is known how many bytes of text a token is; else there are no bits per byte.
        entropy_nats_per_token: The least loss that there can be, where the source's entropy is known.
    """

    name: str
    vocabulary_size: int
    context_length: int
    train: TokenSplit
    val: TokenSplit
    test: TokenSplit
    fingerprint: str
    document_id: int | None
    knows_bytes: bool
    entropy_nats_per_token: float | None = None
    count_pairs: Callable[[], float | None]

    @cached_property
    def bigram_bits_per_byte(self) -> float | None:
        """Bits per byte of validation text under a bigram count model of the training bytes.

        Its smoothing and its symbols are those of `study.data.bigram`. Of a Markov source it is what the best
        such model reaches. None where the bytes of tokens are not known.
        """
        return self.count_pairs()


def load_text(
    name: str,
    *,
    context_length: int,
    tokenizer: str = "bytes",
    root: str | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
) -> TextData:
    """Open a text, or return the one that is already open for these settings.

    Args:
        name: ``stdlib``, ``text:<path>``, ``tokens:<path>`` or ``markov:<order>``.
        context_length: Tokens of a sequence.
        tokenizer: ``bytes``, ``bpe:<vocabulary size>`` or ``file:<tokenizer.json>``. Bytes take plain text in
            any encoding; the others need UTF-8. A Markov source has its own symbols and uses none.
        root: Where relative paths start; None is the working directory.
        validation_fraction: The share of documents for validation, where the text names no such split.
        test_fraction: The share for testing, likewise.

    Returns:
        The three splits and what is to be known of them.

    Raises:
        DataError: A path, a split, a column or a tokenizer is missing; a file is not text, or not UTF-8 where
            it must be (file and row are named); a split is shorter than one sequence; a fraction leaves none.
    """
    if type(context_length) is not int or context_length < 1:
        raise DataError(
            "data.context_length",
            value=context_length,
            rule="must be a whole number of at least 1",
            remedy="for example 256",
        )
    for path, share in (("validation_fraction", validation_fraction), ("test_fraction", test_fraction)):
        if not 0 < share < 1 or validation_fraction + test_fraction >= 1:
            rule = "validation and test must have more than none, and together less than all"
            raise DataError(f"data.{path}", value=share, rule=rule, remedy="for example 0.1 each")
    fractions = Fractions(val=validation_fraction, test=test_fraction)
    fingerprint = text_fingerprint(name, tokenizer=tokenizer, root=root)
    return _load(name, context_length, tokenizer, root, fractions, fingerprint)


def check_model_takes(text: TextData, *, vocabulary_size: int, longest_context: int | None = None) -> None:
    """Check that a model takes the tokens of a text.

    Args:
        text: The text.
        vocabulary_size: Ids that the model has.
        longest_context: Tokens that the model takes at most; None where it has no limit.

    Raises:
        DataError: The text has more ids, or longer sequences.
    """
    if text.vocabulary_size > vocabulary_size:
        raise DataError(
            "data.tokenizer",
            value=text.vocabulary_size,
            rule=f"must have no more ids than the model, which has {vocabulary_size}",
            remedy="use a tokenizer with fewer, or a model with more",
        )
    if longest_context is not None and text.context_length > longest_context:
        raise DataError(
            "data.context_length",
            value=text.context_length,
            rule="must be no longer than the model takes",
            remedy=f"at most {longest_context}",
        )


@lru_cache(maxsize=8)
def _load(
    name: str, context_length: int, tokenizer: str, root: str | None, fractions: Fractions, fingerprint: str
) -> TextData:
    kind = name.partition(":")[0]
    if kind == "markov":
        return _markov(name, context_length, fingerprint)
    if kind == "tokens":
        return _tokens(name, context_length, tokenizer, root, fractions, fingerprint)
    corpus = encoded_corpus(name, tokenizer, root, fractions, fingerprint.partition("/")[0])
    splits: dict[str, TokenSplit] = {}
    for split in SPLITS:
        packed = PackedTokens(
            corpus.streams[split],
            context_length=context_length,
            document_id=corpus.document_id,
            length_V=corpus.length_V,
            length_N=corpus.lengths.get(split),
        )
        check_length(split, packed.tokens, context_length)
        splits[split] = packed
    return TextData(
        name=name,
        vocabulary_size=corpus.vocabulary_size,
        context_length=context_length,
        fingerprint=fingerprint,
        document_id=corpus.document_id,
        knows_bytes=True,
        count_pairs=lambda: bits_per_byte(corpus.pairs["train"], corpus.pairs["val"]),
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
    )


def _markov(name: str, context_length: int, fingerprint: str) -> TextData:
    order = order_of(name)
    check_context(order, context_length)
    source = markov_source(order)
    train, val, test = (MarkovSplit(source, split, context_length) for split in SPLITS)
    return TextData(
        name=name,
        vocabulary_size=SYMBOLS,
        context_length=context_length,
        train=train,
        val=val,
        test=test,
        fingerprint=fingerprint,
        document_id=None,
        knows_bytes=True,
        entropy_nats_per_token=source.entropy_nats_per_token,
        count_pairs=lambda: bits(source.bigram_nats_per_token),
    )


def _tokens(
    name: str, context_length: int, tokenizer: str, root: str | None, fractions: Fractions, fingerprint: str
) -> TextData:
    files = open_tokens(name, root, fractions)
    said = files.tokenizer or (tokenizer if tokenizer.startswith("file:") else None)
    words: Tokenizer | None = read_tokenizer(said, root) if said else None
    if words is not None and files.vocabulary_size > words.vocabulary_size:
        raise DataError(
            "data.tokenizer",
            value=said,
            rule=f"must have the ids of the files, which are {files.vocabulary_size}; it has "
            f"{words.vocabulary_size}",
            remedy="name the tokenizer that wrote them",
        )
    document_id = words.document_id if words and files.document_id is None else files.document_id
    length_V = words.length_V if words else None
    splits: dict[str, TokenSplit] = {}
    for split, stream in files.streams.items():
        packed = PackedTokens(
            stream, context_length=context_length, document_id=document_id, length_V=length_V
        )
        check_length(split, packed.tokens, context_length)
        splits[split] = packed

    def bigram() -> float | None:
        if not isinstance(words, ByteTokenizer):
            return None
        return bits_per_byte(*(pairs_of_stream(files.streams[split]) for split in ("train", "val")))

    return TextData(
        name=name,
        vocabulary_size=words.vocabulary_size if words else files.vocabulary_size,
        context_length=context_length,
        fingerprint=fingerprint,
        document_id=document_id,
        knows_bytes=length_V is not None,
        count_pairs=bigram,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
    )
