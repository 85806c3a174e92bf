"""The results store: the only place where rows of Parquet files are found, read and merged.

`open_store` is what other packages import from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.store.store import Store, open_store

__all__ = ["Store", "open_store"]


def __getattr__(name: str) -> Any:
    """Imports the store when it is first asked for: its files alone must not cost DuckDB."""
    if name in __all__:
        from analysis.store import store

        return getattr(store, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
