"""A results store as three read-only SQL views: ``trials``, ``epochs`` and ``blocks``."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.errors import QueryError, StoreError, UnknownStudyError
from analysis.schema import TABLES
from analysis.store.bulk import connect, table_reader
from analysis.store.growing import Held, files_held, same_members, without
from analysis.store.listing import Listing, SkippedFile, VanishedError, list_files
from analysis.store.notes import Note, read_notes
from analysis.store.once import one_per_key
from analysis.store.reading import Read
from analysis.store.statement import Stop, answer, check_statement, new_database
from analysis.store.trials import one_per_trial

T = TypeVar("T")

_ORDER = ("study", "started_at", "trial_id")
_OF_THAT_ATTEMPT = """
    SELECT rows.* FROM rows JOIN trials
    ON rows.trial_id = trials.trial_id AND rows.attempt = trials.attempt AND rows.study = trials.study
    ORDER BY {keys}
"""
_KEYS = {
    "epochs": ("study", "trial_id", "epoch"),
    "blocks": ("study", "trial_id", "epoch", "block", "name"),
}
"""What names a row of a view. Of each trial there is one attempt in it."""
_DYNAMIC = ("query(", "query_table", "duckdb_", "information_schema", "pragma_")


class Store:
    """The rows of one results store, read once, when first asked for.

    ``trials`` holds one row per trial: of its attempts the last one that ended ``ok``, else the last one.
    ``epochs`` and ``blocks`` hold the rows of that attempt, each once. Open it with `open_store`.

    Attributes:
        path: the store's folder or URI, as given.
        study: the study the views are restricted to, or None for all. A trial belongs to the study that ran
            it and to every study whose ``study.json`` lists it.
        studies: every study the store has a folder for.
        memory_bytes: what statements of SQL may take together, beside the rows.

    """

    def __init__(
        self,
        path: str | Path,
        listing: Listing,
        *,
        study: str | None = None,
        memory_bytes: int | None = None,
    ):
        self.path = str(path)
        self.study = study
        self.studies = listing.studies
        self._listing = listing
        self._members = listing.members(study) if study is not None else frozenset()
        self._tables: dict[str, pa.Table] = {}
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._derived: dict[Hashable, Any] = {}
        self._ahead: dict[str, Future[Read]] = {}
        self._skipped: list[SkippedFile] = []
        self._held: dict[str, Held] = {}
        self._reading = threading.RLock()
        self._database, self.memory_bytes = new_database(memory_bytes)

    @property
    def skipped(self) -> tuple[SkippedFile, ...]:
        """The torn and foreign files left out; reads every table that was not read yet."""
        for name in TABLES:
            self.table(name)
        return tuple(self._skipped)

    def table(self, name: str) -> pa.Table:
        """Return one of the views as an Arrow table with the schema of `analysis.schema`.

        Raises:
            QueryError: there is no such table.
            StoreError: a file was written by a newer version.

        """
        if name not in TABLES:
            near = difflib.get_close_matches(name, TABLES, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise QueryError(f"no table {name!r}: a store has {', '.join(TABLES)}{hint}")
        with self._reading:
            return self._table(name)

    def _table(self, name: str) -> pa.Table:
        if name not in self._tables:
            ahead = self._ahead.pop(name, None)
            read, skipped = self._read(name) if ahead is None else ahead.result()
            self._skipped += skipped
            if (held := self._held.pop(name, None)) is not None:
                read = pa.concat_tables([held.rows, read])
            if name == "trials":
                result = _in_order(one_per_trial(read))
            else:
                workspace = connect()
                workspace.register("rows", read)
                workspace.register("trials", self.table("trials").select(["trial_id", "attempt", "study"]))
                keys = _KEYS[name]
                query = _OF_THAT_ATTEMPT.format(keys=", ".join(f"rows.{key}" for key in keys))
                result = one_per_key(workspace.sql(query).to_arrow_table().cast(TABLES[name].arrow), keys)
            self._tables[name] = result
        return self._tables[name]

    def read_ahead(self, *names: str) -> None:
        """Begins to read these tables in the background, for a caller that has other work to do first."""
        wanted = [name for name in names if name not in self._tables and name not in self._ahead]
        pool = ThreadPoolExecutor(1)
        for name in wanted:
            try:
                self._ahead[name] = pool.submit(self._read, name, self._reader(name))
            except VanishedError:
                self._ahead[name] = pool.submit(self._read, name)
        pool.shutdown(wait=False)

    def grown(self, listing: Listing) -> Store:
        """This store as a later listing has it, for one who follows a run: files are never changed, so those
        that were read are not read again.

        Args:
            listing: The files of the same store, listed later.

        Returns:
            Another store; this one stays as it is. Where files were merged or are gone, it reads all anew.

        """
        later = Store(self.path, listing, study=self.study, memory_bytes=self.memory_bytes)
        with self._reading:
            held = {
                name: Held(
                    rows=self._tables[name], files=files_held(self._listing, name, self._tables["trials"])
                )
                for name in self._tables
            } | self._held
            if same_members(self._listing, listing, self._members, later._members):
                later._held = {
                    name: part for name, part in held.items() if part.files <= set(listing.files[name])
                }
            folders = tuple(f"/{name}/" for name in later._held)
            odd = {file.path for files in listing.odd.values() for file in files}  # they are told anew
            old = [file for file in self._skipped if file.path not in odd]
            later._skipped = [file for file in old if any(folder in file.path for folder in folders)]
        return later

    def _reader(self, name: str) -> Callable[[], Read]:
        listing = self._listing
        if (held := self._held.get(name)) is not None:
            listing = without(listing, name, held.files)
        return table_reader(listing, TABLES[name], study=self.study, members=self._members)

    def _read(self, name: str, read: Callable[[], Read] | None = None) -> Read:
        """Reads the files of a table; lists them anew where some were merged since they were listed."""
        for _ in range(5):
            try:
                return (read or self._reader(name))()
            except VanishedError as error:
                vanished, read = error, None
                self._held.pop(name, None)
                self._listing = list_files(self.path)
        raise StoreError(f"files of the store {self.path!r} keep vanishing while they are read: {vanished}")

    def members(self, study: str) -> frozenset[str]:
        """The trials that a study's ``study.json`` lists: its own, and those that earlier ones trained."""
        return self._listing.members(study)

    def description(self, study: str) -> str:
        """What a study says of itself in its ``study.json``; empty where it says nothing."""
        return self._listing.description(study)

    def tags(self, study: str) -> tuple[str, ...]:
        """The words that a study is found by, from its ``study.json``."""
        return self._listing.tags(study)

    def notes(self) -> tuple[Note, ...]:
        """Return what people have written about the trials of the store, in the order of writing.

        Raises:
            StoreError: it cannot be read.

        """
        try:
            return self.remember("notes", lambda: read_notes(self._listing.storage, self.studies))
        except OSError as error:
            raise StoreError(f"cannot read the notes of the store {self.path!r}: {error}") from None

    def trials_of(self, study: str | None) -> list[dict[str, Any]]:
        """The rows of ``trials`` that belong to a study: those it ran and those its ``study.json`` lists."""
        rows = self.rows("trials")
        if study is None or study == self.study:
            return rows
        members = self._listing.members(study)
        return [row for row in rows if row["study"] == study or row["trial_id"] in members]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a view as dicts, in a fixed order. The list is shared: treat it as read-only."""
        if name not in self._rows:
            self._rows[name] = self.table(name).to_pylist()
        return self._rows[name]

    def remember(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` returns, computed once for this store: several parts of a report ask the same."""
        if key not in self._derived:
            self._derived[key] = compute()
        return self._derived[key]

    def rows_of(self, name: str, trial_ids: Iterable[str]) -> list[dict[str, Any]]:
        """The rows of a view that belong to these trials; a large store has millions of others."""
        table = self.table(name)
        wanted = pa.array(sorted(set(trial_ids)), pa.string())
        return table.filter(pc.is_in(table["trial_id"], wanted)).to_pylist()

    def sql(
        self,
        query: str,
        *,
        limit: int | None = None,
        most_bytes: int | None = None,
        stop: Stop | None = None,
    ) -> pa.Table:
        """Answers one SELECT, WITH, FROM, DESCRIBE, SHOW or SUMMARIZE statement over the views.

        The statement can reach no file, no network and no setting, and every other kind of statement is
        refused before it runs. Several threads may ask at once.

        Args:
            query: the statement.
            limit: the most rows to return.
            most_bytes: the most bytes of the answer; by default as many as the statement may take.
            stop: ends the statement from another thread, or after some time.

        Returns:
            The answer as an Arrow table.

        Raises:
            EndedError: `stop` ended it.
            QueryError: the query is not valid (the message is DuckDB's), not one read-only statement, or
                takes more memory than it may.

        """
        check_statement(self._database, query)
        text = query.lower()
        every = any(word in text for word in _DYNAMIC)
        views = {
            name: self.table(name) if every or name in text else table.arrow.empty_table()
            for name, table in TABLES.items()
        }
        most = self.memory_bytes if most_bytes is None else most_bytes
        return answer(self._database, query, views, limit=limit, most_bytes=most, stop=stop)


def _in_order(rows: pa.Table) -> pa.Table:
    """Return the rows by study, start and trial.

    The order is found from three columns. The others are moved only if a row changes its place, which in a
    merged file none does: in a large store that is most of the work.
    """
    keys = [(name, "ascending") for name in _ORDER]
    order = pc.sort_indices(rows.select(list(_ORDER)), sort_keys=keys)
    moved = not (order.to_numpy() == np.arange(rows.num_rows)).all()
    return rows.take(order) if moved else rows


def open_store(path: str | Path, study: str | None = None, *, memory_bytes: int | None = None) -> Store:
    """Opens the store at `path` (a folder, or a URI for object storage) for reading.

    Args:
        path: the store.
        study: restrict the views to this study.
        memory_bytes: what statements of SQL may take together, beside the rows; see
            `analysis.store.statement.new_database`.

    Returns:
        The store, with views of its rows as they are now.

    Raises:
        StoreError: nothing is there, or it cannot be read.
        UnknownStudyError: the store has no such study; the message names the nearest.

    """
    listing = list_files(path)
    if study is not None and study not in listing.studies:
        near = difflib.get_close_matches(study, listing.studies, n=1, cutoff=0.4)
        if near:
            hint = f"did you mean {near[0]!r}?"
        elif listing.studies:
            hint = "it holds " + ", ".join(listing.studies)
        else:
            hint = f"it holds none yet; `revstudy run {study} --store {path}` would start it"
        raise UnknownStudyError(f"the store {str(path)!r} has no study {study!r}: {hint}")
    return Store(path, listing, study=study, memory_bytes=memory_bytes)
