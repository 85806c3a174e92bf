"""Queries over a store, by name or as SQL, and the description of its tables and columns."""

from __future__ import annotations

import difflib
import itertools
from array import array
from typing import TYPE_CHECKING

import pyarrow as pa

from analysis.errors import QueryError
from analysis.named_queries import NAMED
from analysis.schema import TABLES

if TYPE_CHECKING:
    from analysis.store.statement import Stop
    from analysis.store.store import Store


def run_query(
    store: Store,
    text: str,
    *,
    limit: int | None = None,
    most_bytes: int | None = None,
    stop: Stop | None = None,
) -> pa.Table:
    """Answers a named query or SQL; the limits are those of `analysis.store.store.Store.sql`.

    Returns:
        The answer as an Arrow table.

    Raises:
        QueryError: neither a known name nor a valid read-only statement, or beyond a limit.

    """
    name = text.strip()
    if name in NAMED:
        text = NAMED[name].sql
    elif name.isidentifier():
        near = difflib.get_close_matches(name, NAMED, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(NAMED)}; anything else is SQL"
        raise QueryError(f"no named query {name!r}: {hint}")
    return store.sql(text, limit=limit, most_bytes=most_bytes, stop=stop)


def list_queries() -> pa.Table:
    """The named queries: name and meaning."""
    return _texts(name=list(NAMED), meaning=[query.meaning for query in NAMED.values()])


def describe(table: str | None = None) -> pa.Table:
    """Return every column of the store, or of one table, with type, unit and meaning.

    Raises:
        QueryError: there is no such table.

    """
    if table is not None and table not in TABLES:
        near = difflib.get_close_matches(table, TABLES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise QueryError(f"no table {table!r}: a store has {', '.join(TABLES)}{hint}")
    found = [(t, c) for t in TABLES.values() if table in (None, t.name) for c in t.columns]
    return _texts(
        table=[t.name for t, _ in found],
        column=[c.name for _, c in found],
        type=[str(c.type) for _, c in found],
        unit=[c.unit for _, c in found],
        meaning=[c.meaning for _, c in found],
    )


def _texts(**columns: list[str]) -> pa.Table:
    """Makes a table of texts.

    `pyarrow.array` would import pandas, where that is installed, to see whether it is handed a series: that
    takes as long as everything else that lists queries or columns.

    Returns:
        One column of strings for each argument, with its name.
    """
    arrays = []
    for values in columns.values():
        encoded = [value.encode() for value in values]
        ends = array("i", itertools.accumulate(map(len, encoded), initial=0))
        buffers = (pa.py_buffer(ends.tobytes()), pa.py_buffer(b"".join(encoded)))
        arrays.append(pa.StringArray.from_buffers(len(values), *buffers))
    return pa.Table.from_arrays(arrays, names=list(columns))
