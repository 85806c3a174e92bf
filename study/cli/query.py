"""The verbs that show rows and columns: query, describe, schema."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from study.cli import interrupts
from study.cli.imports import leave_out_pandas
from study.cli.options import STORE, FormatOption, JsonOption, MemoryOption, StoreOption, bytes_of
from study.cli.output import print_json, print_rows, say

BYTES_OF_TEXT = 500
"""Memory that a value takes while it is written as text: 300 in a table, 450 in JSON, measured."""
WHOLE = 1_000
"""Characters of a cell where the words are the answer."""


def register(app: typer.Typer) -> None:
    """Add the verbs to the program."""
    sql = "select model, max(accuracy_val) from trials group by all"
    for verb, example in (
        (query, f'`revstudy query "{sql}"`, `revstudy query pareto --format latex`'),
        (describe, "`revstudy describe epochs`"),
        (schema, "`revstudy schema --explain train.learning_rate`"),
    ):
        app.command(epilog=f"Example: {example}")(verb)


def query(
    sql: Annotated[
        str | None,
        typer.Argument(help="One SELECT over the views trials, epochs and blocks, or a named query."),
    ] = None,
    store: StoreOption = STORE,
    format: FormatOption = "table",
    listed: Annotated[bool, typer.Option("--list", help="List the named queries.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            min=0.1,
            metavar="SECONDS",
            help="Give up after so long, with exit code 124. Without it there is no limit.",
        ),
    ] = None,
    memory_gb: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer SQL over the store, read-only. Without a query, list the named queries."""
    from analysis.queries import list_queries, run_query

    if sql is None or listed:
        _write(list_queries(), format, as_json=as_json, widest=WHOLE)
        return
    leave_out_pandas()
    from analysis.store.store import open_store

    with interrupts.time_limit(timeout):
        opened = open_store(store, memory_bytes=bytes_of(memory_gb))
        answer = run_query(opened, sql)
        _check_text(answer.num_rows * answer.num_columns, "json" if as_json else format, opened.memory_bytes)
    _write(answer, format, as_json=as_json)


def describe(
    table: Annotated[str | None, typer.Argument(help="trials, epochs or blocks; without it, all.")] = None,
    format: FormatOption = "table",
    as_json: JsonOption = False,
) -> None:
    """Describe every table and column of a store: type, unit and meaning."""
    from analysis.queries import describe as columns_of

    _write(columns_of(table), format, as_json=as_json, widest=WHOLE)


def schema(
    what: Annotated[
        str, typer.Argument(help="study, or a table of the store: trials, epochs, blocks.")
    ] = "study",
    key: Annotated[
        str | None,
        typer.Option(
            "--explain", metavar="KEY", help="Explain one key of a study file: train.learning_rate."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the JSON Schema of study files, the columns of a table, or what one key of a study file means."""
    if key is not None:
        _explain(key, as_json=as_json)
        return
    if what == "study":
        from study.spec.study import Study

        print_json(Study.json_schema())
        return
    from analysis.formats import render
    from analysis.queries import describe

    say(str(render(describe(what), "json" if as_json else "markdown")))


def _explain(key: str, *, as_json: bool) -> None:
    from dataclasses import asdict

    from study.spec.explain import explain

    found = asdict(explain(key))
    if as_json:
        print_json(found)
        return
    keys = found.pop("keys")
    if found["default"] is not None:
        found["default"] = f"{found['default']}"
    say("\n".join(f"{name + ':':<10}{value}" for name, value in found.items() if value))
    if keys:
        say("\nIts keys:")
        print_rows([{"key": f"{key}.{name}", "meaning": meaning} for name, meaning in keys.items()])


def _check_text(values: int, format: str, most_bytes: int) -> None:
    """Refuse to write as text what would take more memory than the query itself may."""
    from analysis.errors import QueryError

    if format != "parquet" and values * BYTES_OF_TEXT > most_bytes:
        raise QueryError(
            f"the answer has {values:,} values, and writing them as text takes more than "
            f"{most_bytes / 1e6:,.0f} MB: take --format parquet, ask for fewer rows or columns, or allow "
            "more by a larger --memory-gb"
        )


def _write(table: object, format: str, *, as_json: bool, widest: int = 60) -> None:
    from analysis.formats import render

    answer = render(table, "json" if as_json else format, widest=widest)
    if isinstance(answer, bytes):
        sys.stdout.buffer.write(answer)
    else:
        say(answer.removesuffix("\n"))
