"""The study file: its sections, its axes, its rules, and `load_study`, which reads and checks it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.spec.load import builtin_studies, load_study, parse_study
    from study.spec.study import Study

__all__ = ["Study", "builtin_studies", "load_study", "parse_study"]

_HOMES = {"Study": "study", "builtin_studies": "load", "load_study": "load", "parse_study": "load"}


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for."""
    if name in _HOMES:
        return getattr(import_module(f"study.spec.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
