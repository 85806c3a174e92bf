"""Add what the GPU suite brought back to a results store, and to the tables of the benchmarks.

    python benchmarks/gpu/to_store.py DIR --store results

Trials of ``DIR/store`` are copied as they are; a trial attempt that the store has is left alone. The lines of
``conformance.jsonl`` and ``speed.jsonl`` become Parquet files of ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from analysis.schema import TABLES, VERSION_KEY
from benchmarks.gpu.common import Lines
from benchmarks.results_file import FOLDER

KINDS = ("conformance", "speed")


def copy_trials(source: Path, store: Path) -> int:
    """Copy trial attempts that the store lacks, curves before rows; returns how many rows came.

    Returns:
        How many rows of the table `trials` were copied.

    Raises:
        ValueError: a file is no table of a results store.

    """
    copied = 0
    for table in ("epochs", "blocks", "trials"):
        for file in sorted(source.glob(f"study=*/{table}/*.parquet")):
            if VERSION_KEY not in (pq.read_schema(file).metadata or {}):
                raise ValueError(f"{file} is no file of the table {TABLES[table].name}")
            target = store / file.relative_to(source)
            if target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}")
            shutil.copyfile(file, part)
            part.replace(target)
            copied += table == "trials"
    return copied


def tabulate(lines: Lines, target: Path) -> int:
    """Write the lines as one Parquet file; figures of their own names become JSON. Returns the rows."""
    rows = [
        {key: json.dumps(value) if isinstance(value, dict) else value for key, value in line.items()}
        for line in lines.read()
    ]
    if rows:
        keys = sorted({key for row in rows for key in row})
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}")
        pq.write_table(pa.Table.from_pylist([{key: row.get(key) for key in keys} for row in rows]), part)
        part.replace(target)
    return len(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Copy and print what came."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("source", type=Path, metavar="DIR")
    made.add_argument("--store", type=Path, default=Path("results"))
    made.add_argument("--tables", type=Path, default=FOLDER, help="folder for the Parquet files")
    chosen = made.parse_args(arguments)
    if not chosen.source.is_dir():
        made.error(f"DIR must be a folder that the suite wrote; received {chosen.source}")
    print(f"{copy_trials(chosen.source / 'store', chosen.store)} trials added to {chosen.store}")
    for kind in KINDS:
        target = chosen.tables / f"gpu-{kind}.parquet"
        count = tabulate(Lines(chosen.source / f"{kind}.jsonl"), target)
        if count:
            print(f"{count} rows: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
