"""Keeps a report fresh while a sweep runs: writes it again when files appear in the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from analysis.report.page import write_report
from analysis.store.listing import list_files

Signature = tuple[tuple[str, ...], ...]


def signature(store: str | Path) -> Signature:
    """Return what a store holds, by the names of its files: files are never changed, so other names mean
    other rows.

    Raises:
        StoreError: the store cannot be read.

    """
    listing = list_files(store)
    return (listing.studies, *(listing.files[table] for table in sorted(listing.files)))


def watch_report(
    store: str | Path,
    study: str | None = None,
    out: str | Path | None = None,
    *,
    every: float = 2.0,
    on_write: Callable[[Path, float], None] = lambda path, seconds: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Writes the report, and again whenever the store changed, until `stop` says so.

    The page it writes loads itself anew every few seconds and keeps its filters, which are in its address.

    Args:
        store: the store.
        study: only this study.
        out: the file to write, as for `analysis.report.page.write_report`.
        every: seconds between two looks at the store; more where writing takes longer than a third of that.
        on_write: told the path and the seconds it took, after each write.
        stop: asked before each look.

    Raises:
        AnalysisError: as `analysis.report.page.write_report` does.

    """
    seen: Signature | None = None
    pause = 0.0
    while not stop():
        if seen is not None:
            time.sleep(pause)
        now = signature(store)
        if now == seen:
            continue
        begun = time.perf_counter()
        path = write_report(store, study, out, refresh_s=max(3.0, every))
        took = time.perf_counter() - begun
        seen, pause = now, max(every, 3 * took)
        on_write(path, took)
