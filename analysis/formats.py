"""The formats an answer is written in: a table to read, and those other programs and papers take."""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
from typing import Any

import pyarrow as pa

from analysis.errors import QueryError

FORMATS = ("table", "json", "csv", "parquet", "markdown", "latex")

_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: "\\" + c for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def render(table: pa.Table, format: str = "table", *, widest: int = 60) -> str | bytes:
    """Writes an answer as text, or as the bytes of a Parquet file.

    In JSON a number that is not finite becomes null, as the format has no word for it.

    Args:
        table: the answer.
        format: one of `FORMATS`.
        widest: characters of a cell in the format ``table``; what is longer is cut.

    Returns:
        The text; bytes in the format ``parquet``.

    Raises:
        QueryError: an unknown format, or a value that the format has no place for.

    """
    try:
        return _render(table, format, widest)
    except (pa.ArrowException, OverflowError, ValueError) as error:
        raise QueryError(
            f"the format {format} cannot hold this answer ({str(error).partition(chr(10))[0]}): cast the "
            "column in the query, as in select x::varchar"
        ) from None


def _render(table: pa.Table, format: str, widest: int) -> str | bytes:
    if format == "parquet":
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        pq.write_table(table, sink)
        return sink.getvalue()
    if format == "json":
        rows = [{key: _json_value(value) for key, value in row.items()} for row in _records(table)]
        return json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    if format == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows([["" if v is None else v for v in row] for row in _values(table)])
        return out.getvalue()
    if format == "markdown":
        header = "| " + " | ".join(_one_line(name).replace("|", "\\|") for name in table.column_names) + " |"
        rule = "|" + "|".join(" ---: " if _is_number(field.type) else " --- " for field in table.schema) + "|"
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells(table)]
        return "\n".join([header, rule, *lines])
    if format == "latex":
        return _latex(table)
    if format == "table":
        return _aligned(table, widest=widest)
    near = difflib.get_close_matches(format, FORMATS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise QueryError(f"no format {format!r}: choose {', '.join(FORMATS)}{hint}")


def cells(table: pa.Table) -> list[list[str]]:
    """The rows as the text that the table format shows."""
    return [[_text(value) for value in row] for row in _values(table)]


def _values(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*map(_cells, table.columns), strict=True))


def _cells(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column; as text where they are beyond Python's, such as a date in the year 200,000."""
    try:
        return column.to_pylist()
    except (OverflowError, ValueError):
        return column.cast(pa.string()).to_pylist()


def _records(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as dicts; a repeated column name gets a number, so that no value is lost."""
    names: list[str] = []
    for name in table.column_names:
        again = sum(1 for known in names if known == name or known.rpartition("_")[0] == name)
        names.append(f"{name}_{again}" if name in names else name)
    return [dict(zip(names, row, strict=True)) for row in _values(table)]


def _json_value(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else value


def _is_number(type: pa.DataType) -> bool:
    return pa.types.is_integer(type) or pa.types.is_floating(type) or pa.types.is_decimal(type)


def _one_line(text: str) -> str:
    """One line of printable characters: a message in a store must not steer the reader's terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) and not 1e4 <= abs(value) < 1e15 else f"{value:.0f}"
    if hasattr(value, "isoformat"):
        return value.isoformat(sep=" ", timespec="seconds") if hasattr(value, "hour") else value.isoformat()
    return _one_line(str(value))


def _aligned(table: pa.Table, *, widest: int) -> str:
    lines = [[_one_line(name) for name in table.column_names]]
    lines += cells(table)
    lines = [[cell if len(cell) <= widest else cell[: widest - 1] + "…" for cell in row] for row in lines]
    widths = [max(len(row[i]) for row in lines) for i in range(table.num_columns)]
    right = [_is_number(field.type) for field in table.schema]

    def line(row: list[str]) -> str:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        return "  ".join(padded).rstrip()

    rule = "  ".join("─" * width for width in widths)
    count = f"({table.num_rows:,} row{'s' if table.num_rows != 1 else ''})"
    return "\n".join([line(lines[0]), rule, *map(line, lines[1:]), count])


def _latex(table: pa.Table) -> str:
    """A tabular with the rules of the booktabs package; every character of a store is escaped."""

    def line(row: list[str]) -> str:
        escaped = ("".join(_LATEX.get(c, c) for c in cell) for cell in row)
        return "  " + " & ".join(escaped) + r" \\"

    columns = "".join("r" if _is_number(field.type) else "l" for field in table.schema)
    header = line([_one_line(name).replace("_", " ") for name in table.column_names])
    body = [line(row) for row in cells(table)]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            *(r"  \toprule", header, r"  \midrule", *body, r"  \bottomrule"),
            r"\end{tabular}",
        ]
    )
