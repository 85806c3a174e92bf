"""Named queries over a store, and the description of its tables and columns."""

from __future__ import annotations

import difflib
import itertools
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from analysis.errors import QueryError
from analysis.schema import TABLES

if TYPE_CHECKING:
    from analysis.store.statement import Stop
    from analysis.store.store import Store


@dataclass(frozen=True, kw_only=True)
class NamedQuery:
    """A query worth a name: `sql` over the views, and what it answers."""

    name: str
    meaning: str
    sql: str


_SETTINGS = "data, model, depth, width, strategy, compute_dtype, stream_dtype, coupling"

_TRAINING = "learning_rate, batch_size, epochs"
"""How it was trained: settings that differ here are no seeds of one another, so they stand in the answer."""

_GROUP = f"{_SETTINGS}, {_TRAINING}, optimizer, weight_decay, schedule, workers, matmul, examples_train"


def _of(table: str, names: str) -> str:
    return ", ".join(f"{table}.{name}" for name in names.split(", "))


_QUERIES = (
    NamedQuery(
        name="best",
        meaning="the settings with the highest validation accuracy, seeds averaged, at most 20",
        sql=f"""
SELECT {_SETTINGS}, {_TRAINING},
       count(DISTINCT seed) AS seeds,
       avg(accuracy_val) AS accuracy_val,
       avg(accuracy_test) AS accuracy_test,
       max(memory_peak_bytes) AS memory_peak_bytes,
       median(step_time_s) AS step_time_s
FROM trials
WHERE outcome = 'ok' AND isfinite(accuracy_val)
GROUP BY {_GROUP}
ORDER BY accuracy_val DESC, memory_peak_bytes, model, depth, width, strategy, compute_dtype, learning_rate
LIMIT 20""",
    ),
    NamedQuery(
        name="blocks",
        meaning="where along the network the error of reversing is largest, in the last probe of each trial",
        sql="""
SELECT t.model, t.depth, t.compute_dtype, t.stream_dtype, b.block, b.name,
       count(*) AS trials,
       median(b.reconstruction_rel_error) AS reconstruction_rel_error,
       median(b.gradient_rel_error) AS gradient_rel_error,
       max(b.gradient_angle_deg) AS gradient_angle_deg_worst
FROM blocks b
JOIN (SELECT trial_id, max(epoch) AS epoch FROM blocks GROUP BY trial_id) last USING (trial_id, epoch)
JOIN trials t USING (trial_id)
GROUP BY ALL
ORDER BY ALL""",
    ),
    NamedQuery(
        name="convergence",
        meaning="epochs until validation accuracy is within one point of the trial's best, seeds averaged",
        sql=f"""
SELECT {_of("t", _SETTINGS)}, {_of("t", _TRAINING)},
       count(*) AS trials,
       avg(c.epochs_needed) AS epochs_needed,
       avg(c.best) AS accuracy_val_best
FROM (
    SELECT trial_id, min(epoch) FILTER (accuracy_val >= best - 0.01) AS epochs_needed, max(best) AS best
    FROM (SELECT trial_id, epoch, accuracy_val, max(accuracy_val) OVER (PARTITION BY trial_id) AS best
          FROM epochs WHERE isfinite(accuracy_val))
    GROUP BY trial_id
) c JOIN trials t USING (trial_id)
WHERE t.outcome = 'ok'
GROUP BY {_of("t", _GROUP)}
ORDER BY epochs_needed, model, depth, width, strategy, compute_dtype, stream_dtype, coupling, data""",
    ),
    NamedQuery(
        name="drift",
        meaning="how the error of reversing changes from the first probed epoch of a trial to its last",
        sql="""
SELECT t.model, t.depth, t.compute_dtype, t.stream_dtype,
       count(*) AS trials,
       median(e.first) AS reconstruction_rel_error_first,
       median(e.last) AS reconstruction_rel_error_last,
       median(e.last / nullif(e.first, 0)) AS growth
FROM (
    SELECT trial_id, arg_min(reconstruction_rel_error, epoch) AS first,
           arg_max(reconstruction_rel_error, epoch) AS last
    FROM epochs WHERE reconstruction_rel_error IS NOT NULL
    GROUP BY trial_id HAVING count(*) > 1
) e JOIN trials t USING (trial_id)
GROUP BY ALL
ORDER BY ALL""",
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
        meaning="trials that no other on the same data beats in validation accuracy and peak memory at once; "
        "their test accuracy took no part in the choice",
        sql=f"""
SELECT trial_id, {_SETTINGS}, seed, accuracy_val, accuracy_test, memory_peak_bytes,
       reconstruction_rel_error
FROM trials
WHERE outcome = 'ok' AND isfinite(accuracy_val) AND memory_peak_bytes IS NOT NULL
QUALIFY accuracy_val = max(accuracy_val) OVER (PARTITION BY data, memory_peak_bytes)
    AND accuracy_val > coalesce(max(accuracy_val) OVER (
        PARTITION BY data ORDER BY memory_peak_bytes GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ), '-infinity')
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
SELECT {_SETTINGS}, {_TRAINING},
       count(DISTINCT seed) AS seeds,
       avg(accuracy_test) AS accuracy_test,
       stddev_samp(accuracy_test) AS accuracy_test_std,
       min(accuracy_test) AS accuracy_test_min,
       max(accuracy_test) AS accuracy_test_max
FROM trials
WHERE outcome = 'ok' AND isfinite(accuracy_test)
GROUP BY {_GROUP}
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
