"""Results store, SQL views, statistics, figures and the report. Imports no torch, no ray, no `study`.

``analysis.open_store("results").sql("select * from trials")`` answers as an Arrow table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.store.store import open_store

__all__ = ["open_store"]


def __getattr__(name: str) -> Any:
    """Imports the store when it is first asked for: the schema alone must not cost a second."""
    if name == "open_store":
        from analysis.store.store import open_store

        return open_store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
