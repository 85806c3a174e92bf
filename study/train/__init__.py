"""One trial, from its settings to its rows. Imports no Ray, no pydantic and no DuckDB."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.train.trial import train_trial

__all__ = ["train_trial"]

_HOMES = {"train_trial": "trial"}


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for."""
    if name in _HOMES:
        return getattr(import_module(f"study.train.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
