"""Writes to the results store. Files are written once and never changed.

A file appears under its name only when it is whole: see `study.store.files`. The row of a trial comes after
its curves, so that a row in the store means that all of it is there.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.schema import TABLES
from analysis.store.objects import objects_at
from study.store.files import (
    create_file,
    file_exists,
    local_folder,
    located,
    remove_file,
    store_errors,
    write_file,
)
from study.store.rows import TrialResult


class AttemptTakenError(Exception):
    """The store has a row of this trial and attempt already; it stays as it is."""


def write_result(store: str | Path, result: TrialResult) -> None:
    """Add the rows of one trial attempt to the store: up to three Parquet files.

    Raises:
        AttemptTakenError: The store has a row of this attempt; no row is ever written over.
        StoreError: The store cannot be written.
    """
    row = result.trial
    name = f"{row['trial_id']}-a{row['attempt']}.parquet"
    if file_exists(store, f"study={row['study']}/trials/{name}"):
        raise AttemptTakenError(name)
    for table, rows in (("epochs", result.epochs), ("blocks", result.blocks), ("trials", [row])):
        if rows:
            content = pa.Table.from_pylist(rows, schema=TABLES[table].arrow)
            buffer = pa.BufferOutputStream()
            # A file holds a few rows: zstd and dictionaries would take three times as long to read and write.
            pq.write_table(content, buffer, compression="snappy", use_dictionary=False)
            path, data = f"study={row['study']}/{table}/{name}", buffer.getvalue().to_pybytes()
            if table != "trials":
                write_file(store, path, data)
            elif not create_file(store, path, data):
                raise AttemptTakenError(name)


def write_study(
    store: str | Path,
    study: Mapping[str, Any],
    trial_ids: Iterable[str] = (),
    *,
    planned: int | None = None,
    beside: Mapping[str, Any] | None = None,
) -> None:
    """Write ``study=<name>/study.json``: the validated study, with its trials under ``trial_ids``.

    Trials that another study trained are part of this one through that list. `planned` is how many trials the
    study has, those of its searches included that are not known yet. `beside` are further keys of the file:
    see `study.record`.

    Raises:
        StoreError: The store cannot be written.
    """
    trials = {"trial_ids": sorted(trial_ids), **({} if planned is None else {"planned": planned})}
    content = json.dumps({**study, **trials, **(beside or {})}, indent=2, allow_nan=False)
    write_file(store, f"study={study['name']}/study.json", content.encode() + b"\n")


def check_writable(store: str | Path) -> None:
    """Make the store's folder, and make sure that it can be written to; nothing is left behind.

    Object storage must also honour conditional writes, by which runs agree on who trains what.

    Raises:
        StoreError: The store cannot be written.
    """
    name = f".write-test-{uuid.uuid4().hex[:8]}"
    write_file(store, name, b"")
    remove_file(store, name)
    if local_folder(store) is None:
        with store_errors(store, "used by a run"):
            objects_at(located(store)).check()
