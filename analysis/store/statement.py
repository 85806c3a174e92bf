"""One statement of SQL over the views: read-only, and within limits of memory, size and time.

Every statement runs in a connection of its own on one database, so that a long one holds up no other; the
limit of memory is for all of them together.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping

import duckdb
import pyarrow as pa

from analysis.errors import QueryError

MOST_MEMORY = 4_000_000_000
"""Bytes that the statements of a store may take, if nobody says otherwise and the machine has twice that."""

_MORE = "or allow more by a larger --memory-gb (in Python, memory_bytes of open_store)"
_INTERVAL_S = 0.02
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


class EndedError(QueryError):
    """A statement that was ended before it had an answer; the text is the reason."""


class Stop:
    """Ends one statement from another thread, or after some time, whether it has begun or not.

    Args:
        after_s: Seconds after which it ends by itself; None for never.

    """

    def __init__(self, after_s: float | None = None) -> None:
        self._after_s = after_s
        self._reason = ""
        self._wake = threading.Event()

    def end(self, reason: str) -> None:
        """End the statement. It fails with `EndedError` and this reason, unless it has its answer."""
        self._reason = self._reason or reason
        self._wake.set()

    @contextlib.contextmanager
    def watching(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """A block whose work in the connection ends when this says so.

        Raises:
            EndedError: It was ended.
            duckdb.Error: It failed of itself.

        """
        done = threading.Event()

        def watch() -> None:
            if not self._wake.wait(self._after_s):
                self.end(f"the query took longer than {self._after_s:g} s and was ended")
            # DuckDB forgets an interrupt that comes before the statement has begun, so one may not do.
            while not done.wait(_INTERVAL_S):
                connection.interrupt()

        watcher = threading.Thread(target=watch, name="stop", daemon=True)
        watcher.start()
        try:
            yield
        except duckdb.Error:
            if self._reason:
                raise EndedError(self._reason) from None
            raise
        finally:
            done.set()
            self._wake.set()
            watcher.join()


def new_database(memory_bytes: int | None = None) -> tuple[duckdb.DuckDBPyConnection, int]:
    """A database in memory that can reach no file, no network, no variable of this program and no setting.

    Args:
        memory_bytes: What its statements may take together; `MOST_MEMORY` or half of what DuckDB would take
            of this machine, whichever is less, if None.

    Returns:
        The database, and the bytes that its statements may take.

    """
    database = duckdb.connect(":memory:", config={"python_enable_replacements": "false"})
    limit = _default_memory(database) if memory_bytes is None else memory_bytes
    database.execute(
        f"SET memory_limit='{limit}B'; SET temp_directory=''; SET GLOBAL TimeZone='UTC'; "
        "SET enable_progress_bar=false; "
        "SET autoinstall_known_extensions=false; SET autoload_known_extensions=false; "
        "SET enable_external_access=false; SET lock_configuration=true"
    )
    return database, limit


def _default_memory(database: duckdb.DuckDBPyConnection) -> int:
    """The limit of memory that suits this machine, in bytes; DuckDB knows of containers and their limits."""
    found = database.execute("SELECT current_setting('memory_limit')").fetchone()
    number, _, unit = str(found[0] if found else "").partition(" ")
    return min(MOST_MEMORY, int(float(number) * _UNITS[unit]) // 2) if unit in _UNITS else MOST_MEMORY


def check_statement(database: duckdb.DuckDBPyConnection, query: str) -> None:
    """Checks that a text is one statement that reads.

    Raises:
        QueryError: It is not.

    """
    try:
        query.encode()
    except UnicodeEncodeError:
        raise QueryError("the query holds half a character (a lone surrogate), which is no text") from None
    with _as_query_errors(), database.cursor() as connection:
        kinds = [statement.type.name for statement in connection.extract_statements(query)]
    if kinds != ["SELECT"]:
        got = f"{len(kinds)} statements" if len(kinds) != 1 else f"a statement of kind {kinds[0]}"
        raise QueryError(
            f"a query must be one read-only statement (SELECT, WITH, DESCRIBE, SHOW or SUMMARIZE); got {got}"
        )


def answer(
    database: duckdb.DuckDBPyConnection,
    query: str,
    views: Mapping[str, pa.Table],
    *,
    limit: int | None = None,
    most_bytes: int | None = None,
    stop: Stop | None = None,
) -> pa.Table:
    """Answers a statement that `check_statement` has let pass.

    Args:
        database: From `new_database`.
        query: The statement.
        views: The tables that it may read, by name.
        limit: The most rows to return.
        most_bytes: The most bytes of the answer; DuckDB's limit of memory does not count it.
        stop: What may end it.

    Returns:
        The answer's rows.

    Raises:
        EndedError: It was ended.
        QueryError: It is not valid, or it or its answer takes more memory than it may.

    """
    with _as_query_errors(), database.cursor() as connection:
        for name, table in views.items():
            connection.register(name, table)
        with (stop or Stop()).watching(connection):
            found = connection.sql(query)
            reader = pa.RecordBatchReader.from_stream(found if limit is None else found.limit(limit))
            return _read(reader, most_bytes)


def _read(reader: pa.RecordBatchReader, most_bytes: int | None) -> pa.Table:
    batches, size = [], 0
    for batch in reader:
        size += batch.nbytes
        if most_bytes is not None and size > most_bytes:
            raise QueryError(
                f"the answer takes more than {most_bytes / 1e6:,.0f} MB: ask for fewer rows or columns, as "
                f"with LIMIT, {_MORE}"
            )
        batches.append(batch)
    return pa.Table.from_batches(batches, schema=reader.schema)


@contextlib.contextmanager
def _as_query_errors() -> Iterator[None]:
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        reason = str(error).partition("\n")[0]
        raise QueryError(
            f"the query takes more memory than it may ({reason}): ask for less, {_MORE}"
        ) from None
    except duckdb.Error as error:
        message = str(error)
        if isinstance(error, duckdb.PermissionException):
            message += ". A query reads the store's views alone: trials, epochs, blocks"
        raise QueryError(message) from None
