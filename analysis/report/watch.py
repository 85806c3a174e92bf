"""Keeps a report fresh while a sweep runs: writes it again when files appear in the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from analysis.report.page import write_page
from analysis.report.progress import Ask
from analysis.store.listing import Listing, list_files
from analysis.store.store import Store, open_store

Signature = tuple[tuple[str, ...], ...]


def signature(store: str | Path) -> Signature:
    """Return what a store holds, by the names of its files: files are never changed, so other names mean
    other rows.

    Raises:
        StoreError: the store cannot be read.

    """
    return signature_of(list_files(store))


def signature_of(listing: Listing) -> Signature:
    """Return the `signature` of a store that was listed."""
    return (listing.studies, *(listing.files[table] for table in sorted(listing.files)))


def watch_report(
    store: str | Path,
    study: str | None = None,
    out: str | Path | None = None,
    *,
    every: float = 2.0,
    on_write: Callable[[Path, float], None] = lambda path, seconds: None,
    stop: Callable[[], bool] = lambda: False,
    progress: Ask | None = None,
) -> None:
    """Writes the report, and again whenever the store changed, until `stop` says so.

    The page it writes loads itself anew every few seconds and keeps its filters, which are in its address.
    Once `progress` says that the study has ended, a page is written that does so no more.

    Args:
        store: the store.
        study: only this study.
        out: the file to write, as for `analysis.report.page.write_report`.
        every: seconds between two looks at the store; more where writing takes longer than a third of that.
        on_write: told the path and the seconds it took, after each write.
        stop: asked before each look.
        progress: answers how far the run is.

    Raises:
        AnalysisError: as `analysis.report.page.write_report` does.

    """
    seen: Signature | None = None
    opened: Store | None = None
    pause, ended = 0.0, False
    while not stop():
        if seen is not None:
            time.sleep(pause)
        listing = list_files(store)
        now = signature_of(listing)
        if opened is None:
            opened = open_store(store, study)
        elif now != seen:
            opened = opened.grown(listing)
        far = progress(opened) if progress is not None else None
        if now == seen and (far is None or far.ended == ended):
            continue
        begun = time.perf_counter()
        ended = far is not None and far.ended
        path = write_page(opened, out, refresh_s=None if ended else max(3.0, every), progress=far)
        took = time.perf_counter() - begun
        seen, pause = now, max(every, 3 * took)
        on_write(path, took)
