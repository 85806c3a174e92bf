"""The rows that the page is written from, and how their numbers are printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from analysis.store.store import Store, open_store
from benchmarks.results_file import FOLDER

Row = dict[str, Any]
STRATEGIES = ("store", "checkpoint", "recursive", "reverse")


class Rows:
    """Everything that the page is written from."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self.store: Store = open_store(folder / "store")

    def of(self, name: str) -> list[Row]:
        """The rows of one benchmark; none if it was not run."""
        file = self.folder / f"{name}.parquet"
        return pq.read_table(file).to_pylist() if file.exists() else []

    def sql(self, query: str) -> list[Row]:
        """The rows of one SELECT over the store."""
        return self.store.sql(query).to_pylist()


def megabytes(count: float) -> str:
    """Bytes in MB, three digits or more."""
    value = count / 1e6
    return f"{value:,.0f} MB" if value >= 100 else f"{value:.3g} MB"


def error_text(value: float) -> str:
    """An error in two digits, 0 where it is none."""
    return "0" if value == 0 else f"{value:.1e}"


def around(rows: Sequence[Row]) -> list[str]:
    """Hardware and versions of benchmark rows, in italics."""
    places = dict.fromkeys(
        f"{r['device']}, {r['cpu_threads']} threads, PyTorch {r['torch_version']}, {r['measured_at'][:10]}"
        for r in rows
    )
    return [f"*{'; '.join(places)}.*"]


def by_depth(rows: Rows) -> dict[int, dict[str, int]]:
    """Activation bytes by depth and strategy of one design at one batch."""
    found: dict[int, dict[str, int]] = {}
    for r in rows.sql(
        """SELECT depth, strategy, memory_activation_bytes AS bytes FROM trials
           WHERE study = 'paper-memory' AND model = 'revnet110' AND batch_size = 16 AND width = 1
             AND outcome = 'ok' AND num_classes = 10 ORDER BY depth"""
    ):
        found.setdefault(r["depth"], {})[r["strategy"]] = r["bytes"]
    return found


def rounds_by_subject(rows: Rows) -> dict[str, list[dict[str, float]]]:
    """Seconds of each contender, round by round, for each network of benchmarks/speed.py."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for r in rows.of("speed"):
        found.setdefault(r["subject"], {}).setdefault(r["round"], {})[r["contender"]] = r["time_s"]
    return {subject: list(rounds.values()) for subject, rounds in found.items()}
