"""The identity of a text: what it holds and how it is cut into tokens. It imports neither torch nor NumPy."""

from __future__ import annotations

import hashlib
from pathlib import Path

from study.data.text_files import digest_of, text_files
from study.data.token_paths import tokens_digest
from study.errors import DataError, nearest
from study.settings.data import TEXTS

TOKENIZERS = ("bytes", "bpe:<vocabulary size>", "file:<tokenizer.json>")
"""The kinds of tokenizers."""

SMALLEST_BPE = 257
"""The bytes and the document token."""

ORDERS = (1, 4)
"""The least and the greatest order: 65,536 contexts at most."""


def text_fingerprint(name: str, *, tokenizer: str = "bytes", root: str | None = None) -> str:
    """A text's identity, whatever the path: kind and hash of its contents, and its tokenizer.

    Args:
        name: As the study file gives it.
        tokenizer: As `study.data.text.load_text` takes it.
        root: Where relative paths start; None is the working directory.

    Returns:
        Such as ``stdlib:<hash>/bytes``.

    Raises:
        DataError: The name is not that of a text, or its files or its tokenizer are missing.
    """
    kind = name.partition(":")[0]
    if kind == "markov":
        return f"markov:{order_of(name)}"
    if name == "stdlib" or (kind in ("text", "tokens") and name.partition(":")[2]):
        digest = tokens_digest(name, root) if kind == "tokens" else digest_of(text_files(name, root))
        return f"{kind}:{digest}/{tokenizer_identity(tokenizer, root)}"
    raise DataError("data.name", value=name, rule="must be the name of a text", remedy=nearest(name, TEXTS))


def order_of(name: str) -> int:
    """The order of ``markov:<order>``.

    Returns:
        A number from the first to the last of `ORDERS`.

    Raises:
        DataError: It is no number, or not one of `ORDERS`.
    """
    rest = name.partition(":")[2]
    least, most = ORDERS
    if not rest.isdecimal() or not least <= int(rest) <= most:
        raise DataError(
            "data.name",
            value=name,
            rule=f"must give an order from {least} to {most}",
            remedy="for example markov:2",
        )
    return int(rest)


def tokenizer_identity(name: str, root: str | None) -> str:
    """What of a tokenizer is part of a text's identity.

    Returns:
        Its name, or the hash of its file.

    Raises:
        DataError: There is no such kind of tokenizer, its size is no number, or its file is missing.
    """
    kind, _, rest = name.partition(":")
    if name == "bytes":
        return name
    if kind == "bpe":
        if not rest.isdecimal() or int(rest) < SMALLEST_BPE:
            raise DataError(
                "data.tokenizer",
                value=name,
                rule=f"must give a vocabulary of at least {SMALLEST_BPE}: 256 bytes and a document token",
                remedy="for example bpe:8192",
            )
        return f"bpe:{int(rest)}"
    if kind == "file" and rest:
        return f"file:{hashlib.sha256(tokenizer_file(name, root).read_bytes()).hexdigest()[:16]}"
    raise DataError(
        "data.tokenizer", value=name, rule="must be a known tokenizer", remedy=nearest(name, TOKENIZERS)
    )


def tokenizer_file(name: str, root: str | None) -> Path:
    """The file of ``file:<tokenizer.json>``; a relative path starts at `root`.

    Returns:
        An existing file.

    Raises:
        DataError: There is none.
    """
    file = Path(root or ".").expanduser() / Path(name.partition(":")[2]).expanduser()
    if not file.is_file():
        beside = [f.name for f in sorted(file.parent.glob("*.json"))]
        remedy = nearest(file.name, beside) or f"there is no tokenizer in {file.parent}"
        raise DataError("data.tokenizer", value=name, rule="must name an existing file", remedy=remedy)
    return file
