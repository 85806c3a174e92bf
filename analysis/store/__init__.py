"""The results store: the only place where rows of Parquet files are found, read and merged.

=============  ====================================================================================
``storage``    the folder or bucket: list, read, write whole or not at all, delete
``objects``    conditional writes in object storage; ``exclusive`` is one process at a time
``manifest``   which merged file stands for which files
``listing``    which files count
``reading``    one file into the columns of its table, or the reason why it is left out
``footers``    files sorted by layout, for ``bulk``
``bulk``       all files of a table, in batches by DuckDB
``trials``     what a run asks: which trials are done, which attempts there were
``store``      the views of trials, epochs and blocks, read with SQL and as Arrow tables
``statement``  one statement of SQL, within limits of memory, size and time
``merging``    many files into one; ``settle`` proves and deletes; ``compact`` is both, a study at a time
=============  ====================================================================================

Others import the names below, and `analysis.store.compact.compact`. A new way to read rows goes here, and
reads files through ``reading`` or ``bulk``: what is left out of one answer is left out of all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.store.listing import Listing, SkippedFile, list_files
    from analysis.store.storage import Storage, open_storage
    from analysis.store.store import Store, open_store
    from analysis.store.trials import TrialTable, attempts_of

_HOMES = {
    "Listing": "listing",
    "SkippedFile": "listing",
    "Storage": "storage",
    "Store": "store",
    "TrialTable": "trials",
    "attempts_of": "trials",
    "list_files": "listing",
    "open_storage": "storage",
    "open_store": "store",
}

__all__ = [
    "Listing",
    "SkippedFile",
    "Storage",
    "Store",
    "TrialTable",
    "attempts_of",
    "list_files",
    "open_storage",
    "open_store",
]


def __getattr__(name: str) -> Any:
    """Imports a name from its module when it is first asked for: a run must not pay for DuckDB."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
