"""How the command line speaks: results to standard output as text or JSON, all else to standard error."""

from __future__ import annotations

import datetime as dt
import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def plain(value: Any) -> Any:
    """Return a value that strict JSON can hold: no NaN or infinity, times in ISO 8601, the rest as text.

    >>> plain({"error": float("nan"), "depths": (26, 38)})
    {'error': None, 'depths': [26, 38]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def print_json(value: Any) -> None:
    """Write one JSON document to standard output."""
    say(json.dumps(plain(value), indent=2, ensure_ascii=False))


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of the same keys to standard output as an aligned table, numbers to the right, uncut."""
    names = list(rows[0])
    lines = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    numeric = [all(type(row[name]) in (int, float, type(None)) for row in rows) for name in names]
    lines.insert(1, ["─" * width for width in widths])
    for line in lines:
        cells = zip(line, widths, numeric, strict=True)
        say("  ".join(c.rjust(w) if right else c.ljust(w) for c, w, right in cells).rstrip())


def _cell(value: Any) -> str:
    """A value as a table shows it: floats to four digits, null as nothing, times to the second."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dt.datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return "".join(c if c.isprintable() else " " for c in str(value))


def say(text: str = "") -> None:
    """Write a line to standard output."""
    sys.stdout.write(text + "\n")


def tell(text: str) -> None:
    """Write a line to standard error: progress, advice, errors."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def megabytes(count: int | None) -> str:
    """Bytes for people, in MB of a million."""
    return "unknown" if count is None else f"{count / 1e6:.2f} MB"


def duration(seconds: float) -> str:
    """Return seconds as people say them.

    >>> duration(125.4)
    '2 min 5 s'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
