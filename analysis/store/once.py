"""Each row once, where a file was copied or the curves of an attempt were written a second time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.store.bulk import connect


def one_per_key(rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Return one row for each key, the same whatever the order in which rows of a key were read.

    Args:
        rows: Rows in the order of `keys`.
        keys: Names of the columns that name a row; null is a value like another.

    Returns:
        The rows in their order. Of rows with one key, it is the first by the other columns.
    """
    again = _as_before(rows, keys)
    if not again.any():
        return rows
    several = again.copy()
    several[:-1] |= again[1:]  # the first of each key, too
    alike = rows.filter(pa.array(several))
    others = [name for name in rows.column_names if name not in keys]
    alike = alike.sort_by([(name, "ascending") for name in (*keys, *others)])
    first = alike.filter(pa.array(~_as_before(alike, keys)))
    alone = rows.filter(pa.array(~several))
    return pa.concat_tables([alone, first]).sort_by([(name, "ascending") for name in keys])


def without_copies(rows: pa.Table, order: Sequence[str]) -> pa.Table:
    """Return the rows without those that equal another in every column; NaN equals NaN, and null null.

    Args:
        rows: Rows sorted by `order`.
        order: Names of columns; only rows that agree in all of them are compared.
    """
    if not _as_before(rows, order).any():
        return rows
    workspace = connect()
    workspace.register("rows", rows)
    found = workspace.sql("SELECT DISTINCT * FROM rows").to_arrow_table().cast(rows.schema)
    return found.sort_by([(name, "ascending") for name in order])


def _as_before(rows: pa.Table, keys: Sequence[str]) -> np.ndarray:
    """Whether each row has the key of the row before it: bool[rows]."""
    same = np.zeros(rows.num_rows, dtype=bool)
    if rows.num_rows < 2:
        return same
    same[1:] = True
    for name in keys:
        after, before = rows[name][1:], rows[name][:-1]
        both_null = pc.and_(pc.is_null(after), pc.is_null(before))
        equal = pc.or_(pc.fill_null(pc.equal(after, before), False), both_null)
        same[1:] &= equal.to_numpy()
    return same
