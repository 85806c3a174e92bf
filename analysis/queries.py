"""Named queries over a store, the description of its columns, and the formats an answer is written in."""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.errors import QueryError
from analysis.schema import TABLES
from analysis.store import Store

FORMATS = ("table", "json", "csv", "parquet", "markdown")


@dataclass(frozen=True, kw_only=True)
class NamedQuery:
    """A query worth a name: `sql` over the views, and what it answers."""

    name: str
    meaning: str
    sql: str


_SETTINGS = "data, model, depth, width, strategy, compute_dtype, stream_dtype, coupling"

_QUERIES = (
    NamedQuery(
        name="best",
        meaning="the settings with the highest validation accuracy, seeds averaged, at most 20",
        sql=f"""
SELECT {_SETTINGS},
       count(*) AS seeds,
       avg(accuracy_val) AS accuracy_val,
       avg(accuracy_test) AS accuracy_test,
       max(memory_peak_bytes) AS memory_peak_bytes,
       median(step_time_s) AS step_time_s
FROM trials
WHERE outcome = 'ok' AND isfinite(accuracy_val)
GROUP BY ALL
ORDER BY accuracy_val DESC, memory_peak_bytes, model, depth, width, strategy, compute_dtype
LIMIT 20""",
    ),
    NamedQuery(
        name="failures",
        meaning="what did not end ok: how, where and why",
        sql="""
SELECT outcome, error_class, model, depth, width, strategy, compute_dtype,
       count(*) AS trials,
       min(error_message) AS error_message,
       min(trial_id) AS example_trial_id
FROM trials
WHERE outcome IS DISTINCT FROM 'ok'
GROUP BY ALL
ORDER BY trials DESC, outcome, error_class, model, depth, width, strategy, compute_dtype""",
    ),
    NamedQuery(
        name="memory",
        meaning="activation and peak memory of a training step by strategy and depth",
        sql="""
SELECT family, block, width, compute_dtype, stream_dtype, batch_size, memory_source, strategy, depth,
       count(*) AS trials,
       max(memory_activation_bytes) AS memory_activation_bytes,
       max(memory_peak_bytes) AS memory_peak_bytes,
       max(parameters) AS parameters
FROM trials
WHERE outcome = 'ok' AND memory_activation_bytes IS NOT NULL
GROUP BY ALL
ORDER BY ALL""",
    ),
    NamedQuery(
        name="pareto",
        meaning="trials that no other trial on the same data beats in test accuracy and peak memory at once",
        sql=f"""
SELECT trial_id, {_SETTINGS}, seed, accuracy_test, memory_peak_bytes, reconstruction_rel_error
FROM trials
WHERE outcome = 'ok' AND isfinite(accuracy_test) AND memory_peak_bytes IS NOT NULL
QUALIFY accuracy_test = max(accuracy_test) OVER (PARTITION BY data, memory_peak_bytes)
    AND accuracy_test > coalesce(max(accuracy_test) OVER (
        PARTITION BY data ORDER BY memory_peak_bytes GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ), -1)
ORDER BY data, memory_peak_bytes, trial_id""",
    ),
    NamedQuery(
        name="precision",
        meaning="accuracy and the error of reversing by precision",
        sql="""
SELECT compute_dtype, stream_dtype, coupling, strategy,
       count(*) AS trials,
       avg(accuracy_test) AS accuracy_test,
       median(reconstruction_rel_error) AS reconstruction_rel_error,
       max(reconstruction_rel_error) AS reconstruction_rel_error_worst,
       median(gradient_rel_error) AS gradient_rel_error,
       max(gradient_angle_deg) AS gradient_angle_deg_worst
FROM trials
WHERE outcome = 'ok'
GROUP BY ALL
ORDER BY ALL""",
    ),
    NamedQuery(
        name="seeds",
        meaning="how far seeds spread: settings run with more than one seed",
        sql=f"""
SELECT {_SETTINGS},
       count(DISTINCT seed) AS seeds,
       avg(accuracy_test) AS accuracy_test,
       stddev_samp(accuracy_test) AS accuracy_test_std,
       min(accuracy_test) AS accuracy_test_min,
       max(accuracy_test) AS accuracy_test_max
FROM trials
WHERE outcome = 'ok' AND isfinite(accuracy_test)
GROUP BY {_SETTINGS}, epochs, batch_size, learning_rate, optimizer
HAVING count(DISTINCT seed) > 1
ORDER BY seeds DESC, accuracy_test DESC, model, depth, width, strategy, compute_dtype""",
    ),
    NamedQuery(
        name="studies",
        meaning="the studies of the store: trials, outcomes, time",
        sql="""
SELECT study,
       count(*) AS trials,
       count(*) FILTER (WHERE outcome = 'ok') AS ok,
       count(*) FILTER (WHERE outcome IS DISTINCT FROM 'ok') AS not_ok,
       sum(wall_s) AS wall_s,
       min(started_at) AS started_at,
       max(finished_at) AS finished_at
FROM trials
GROUP BY study
ORDER BY study""",
    ),
    NamedQuery(
        name="time",
        meaning="time of a training step by strategy, with what else may have shared the machine",
        sql="""
SELECT device, model, depth, width, compute_dtype, batch_size, strategy,
       count(*) AS trials,
       median(step_time_s) AS step_time_s,
       median(examples_per_s) AS examples_per_s,
       max(concurrent_trials) AS concurrent_trials
FROM trials
WHERE outcome = 'ok' AND step_time_s IS NOT NULL
GROUP BY ALL
ORDER BY ALL""",
    ),
)
NAMED = {query.name: query for query in _QUERIES}


def run_query(store: Store, text: str) -> pa.Table:
    """Answers a named query or SQL.

    Raises:
        QueryError: neither a known name nor a valid read-only statement.

    """
    name = text.strip()
    if name in NAMED:
        return store.sql(NAMED[name].sql)
    if name.isidentifier():
        near = difflib.get_close_matches(name, NAMED, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(NAMED)}; anything else is SQL"
        raise QueryError(f"no named query {name!r}: {hint}")
    return store.sql(text)


def list_queries() -> pa.Table:
    """The named queries: name and meaning."""
    return pa.table({"name": list(NAMED), "meaning": [query.meaning for query in NAMED.values()]})


def describe(table: str | None = None) -> pa.Table:
    """Every column of the store, or of one table, with type, unit and meaning.

    Raises:
        QueryError: there is no such table.

    """
    if table is not None and table not in TABLES:
        near = difflib.get_close_matches(table, TABLES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise QueryError(f"no table {table!r}: a store has {', '.join(TABLES)}{hint}")
    rows = [
        {"table": t.name, "column": c.name, "type": str(c.type), "unit": c.unit, "meaning": c.meaning}
        for t in TABLES.values()
        if table in (None, t.name)
        for c in t.columns
    ]
    return pa.Table.from_pylist(rows)


def render(table: pa.Table, format: str = "table") -> str | bytes:
    """Writes an answer as text, or as the bytes of a Parquet file.

    In JSON a number that is not finite becomes null, as the format has no word for it.

    Raises:
        QueryError: an unknown format.

    """
    if format == "parquet":
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
        lines = [
            "| " + " | ".join(_text(v).replace("|", "\\|") for v in row) + " |" for row in _values(table)
        ]
        return "\n".join([header, rule, *lines])
    if format == "table":
        return _aligned(table)
    near = difflib.get_close_matches(format, FORMATS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise QueryError(f"no format {format!r}: choose {', '.join(FORMATS)}{hint}")


def _values(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


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


def _aligned(table: pa.Table, *, widest: int = 60) -> str:
    cells = [[_one_line(name) for name in table.column_names]]
    cells += [[_text(value) for value in row] for row in _values(table)]
    cells = [[cell if len(cell) <= widest else cell[: widest - 1] + "…" for cell in row] for row in cells]
    widths = [max(len(row[i]) for row in cells) for i in range(table.num_columns)]
    right = [_is_number(field.type) for field in table.schema]

    def line(row: list[str]) -> str:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        return "  ".join(padded).rstrip()

    rule = "  ".join("─" * width for width in widths)
    count = f"({table.num_rows:,} row{'s' if table.num_rows != 1 else ''})"
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:]), count])
