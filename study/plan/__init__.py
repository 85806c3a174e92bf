"""What a study will run, and what that will cost."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.plan.expand import Plan, make_plan

__all__ = ["Plan", "make_plan"]

_HOMES = {"Plan": "expand", "make_plan": "expand"}


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for."""
    if name in _HOMES:
        return getattr(import_module(f"study.plan.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
