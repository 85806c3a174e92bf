"""The documents of a text, read piece by piece, so that memory does not grow with the corpus. No torch.

Plain text may be in any encoding without zero bytes when it is read as bytes; every other tokenizer needs
UTF-8, which is checked where it is encoded. Rows of Parquet and of JSON lines are UTF-8 by their formats.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from study.data.text_files import Fractions, TextFile, split_of
from study.errors import DataError

PIECE_BYTES = 1 << 20
"""A longer document comes in pieces of about this size, cut at ends of lines where there are any."""

COLUMN = "text"
"""The column, or key, of the text in a row."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A document or a part of one: its split and bytes, whether it is the first part, and where it stands."""

    split: str
    content: bytes
    starts: bool
    where: str


def pieces_of(files: list[TextFile], fractions: Fractions) -> Iterator[Piece]:
    """Yield the pieces of all documents, files in their order and rows in theirs. Empty ones are left out.

    A file of plain text is a document, which is drawn to a split; if there is but one to be drawn, it is cut
    into the splits instead, as documents of their own.

    Raises:
        DataError: A file cannot be read, is not text, or has no ``text`` in a row; it names file and row.
    """
    to_draw = [file for file in files if file.rows is None and len(file.splits) > 1]
    for file in files:
        if file.rows is not None:
            for row, text in _ROWS[file.rows](file):
                where = f"{file.path} row {row}"
                yield from _row_pieces(text, split_of(f"{file.key}#{row}", file.splits, fractions), where)
        elif to_draw == [file]:
            for split, start, end in _cuts(file, fractions.among(file.splits)):
                yield from _plain(file, split, start, end)
        else:
            yield from _plain(file, split_of(file.key, file.splits, fractions), 0, file.path.stat().st_size)


def text_of(piece: Piece) -> str:
    """The text of a piece.

    Returns:
        Its bytes decoded.

    Raises:
        DataError: It is not UTF-8.
    """
    try:
        return piece.content.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            "data.name",
            value=f"{piece.content[error.start : error.end]!r} after {error.start} bytes",
            rule=f"{piece.where} must be UTF-8 for a tokenizer of words",
            remedy="convert the file, or use data.tokenizer: bytes",
        ) from None


def _plain(file: TextFile, split: str, start: int, end: int) -> Iterator[Piece]:
    """A stretch of a file of plain text as one document."""
    first, at = True, start
    with _opened(file) as stream:
        stream.seek(start)
        while at < end:
            content = _block(stream, min(PIECE_BYTES, end - at), last=end - at <= PIECE_BYTES)
            zero = content.find(b"\0")
            if zero >= 0:
                raise DataError(
                    "data.name",
                    value=f"a zero byte after {at + zero} bytes",
                    rule=f"{file.path} must be text",
                    remedy="take files that are no text out of the folder, and convert UTF-16 to UTF-8",
                )
            where = f"{file.path}" if start == at == 0 else f"{file.path} after {at} bytes"
            yield Piece(split=split, content=content, starts=first, where=where)
            first, at = False, at + len(content)


def _block(stream: BinaryIO, size: int, *, last: bool) -> bytes:
    """The next bytes of a file up to `size`, without the beginning of a line or letter that does not end."""
    content = stream.read(size)
    if last or len(content) < size:
        return content
    end = content.rfind(b"\n") + 1 or _letter_end(content)
    stream.seek(end - len(content), 1)
    return content[:end]


def _letter_end(content: bytes) -> int:
    """Where the last whole letter of UTF-8 ends; all of it if there is no such place near the end."""
    for end in range(len(content), max(len(content) - 4, 1), -1):
        if content[end - 1] < 0x80:
            return end
        if content[end - 1] >= 0xC0:  # the first byte of a letter, whose others may not be here
            return end - 1
    return len(content)


def _cuts(file: TextFile, shares: Fractions) -> list[tuple[str, int, int]]:
    """Split, start and end of each part of a file, cut at ends of lines or of letters."""
    size = file.path.stat().st_size
    ends = [_cut_near(file, int(size * share)) for share in (1 - shares.val - shares.test, 1 - shares.test)]
    bounds = [0, *ends, size]
    return [
        (split, start, end)
        for split, start, end in zip(("train", "val", "test"), bounds, bounds[1:], strict=False)
        if split in file.splits and end > start
    ]


def _cut_near(file: TextFile, offset: int) -> int:
    with _opened(file) as stream:
        stream.seek(offset)
        following = stream.read(1 << 16)
    line_end = following.find(b"\n")
    if line_end >= 0:
        return offset + line_end + 1
    letters = (i for i, byte in enumerate(following[:4]) if not 0x80 <= byte < 0xC0)
    return offset + next(letters, 0)


def _row_pieces(text: str, split: str, where: str) -> Iterator[Piece]:
    content = text.encode("utf-8", "surrogatepass")
    start = 0
    while start < len(content):
        part = content[start : start + PIECE_BYTES]
        if start + PIECE_BYTES < len(content):
            part = part[: part.rfind(b"\n") + 1 or _letter_end(part)]
        yield Piece(split=split, content=part, starts=start == 0, where=where)
        start += len(part)


def _parquet_rows(file: TextFile) -> Iterator[tuple[int, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with pq.ParquetFile(file.path, memory_map=True) as parquet:
            _check_column(file, parquet.schema_arrow)
            for batch in parquet.iter_batches(batch_size=256, columns=[COLUMN]):
                for cell in batch.column(0):
                    text = cell.as_py()
                    if text is None:
                        raise _no_text(file, row, text)
                    yield row, text
                    row += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            "data.name",
            value=str(error),
            rule=f"{file.path} must be a whole Parquet file of UTF-8 text, and is not from row {row} on",
            remedy="fetch the file again",
        ) from error


def _check_column(file: TextFile, schema: Any) -> None:
    import pyarrow as pa

    if COLUMN not in schema.names:
        raise DataError(
            "data.name",
            value=schema.names,
            rule=f"{file.path} must have a column {COLUMN}",
            remedy="rename the column that holds the text",
        )
    kind = schema.field(COLUMN).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(
            "data.name",
            value=str(kind),
            rule=f"the column {COLUMN} of {file.path} must hold strings",
            remedy="write it as strings",
        )


def _json_rows(file: TextFile) -> Iterator[tuple[int, str]]:
    with _opened(file) as stream:
        for row, line in enumerate(stream):
            if not line.strip():
                continue
            try:
                content = json.loads(line)
            except ValueError as error:  # of JSON and of UTF-8
                raise DataError(
                    "data.name",
                    value=str(error),
                    rule=f"{file.path} row {row} must be a JSON object in UTF-8",
                    remedy="mend the line (rows are counted from 0)",
                ) from None
            text = content.get(COLUMN) if isinstance(content, dict) else None
            if not isinstance(text, str):
                raise _no_text(file, row, text)
            yield row, text


_ROWS = {"parquet": _parquet_rows, "jsonl": _json_rows}


def _no_text(file: TextFile, row: int, value: object) -> DataError:
    return DataError(
        "data.name",
        value=value,
        rule=f"{file.path} row {row} must have a string under {COLUMN}",
        remedy="give it one, or leave the row out (rows are counted from 0)",
    )


def _opened(file: TextFile) -> BinaryIO:
    try:
        return file.path.open("rb")
    except OSError as error:
        raise DataError(
            "data.name",
            value=str(error.strerror),
            rule=f"{file.path} must be a file that can be read",
            remedy="see its permissions",
        ) from error
