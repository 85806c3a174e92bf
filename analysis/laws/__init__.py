"""Laws fitted to the rows of a store: growth of errors with depth, and loss against size and data.

`fit_loss` and `hold_out` are what other packages import from here. The next law goes here, one file each.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.laws.loss import LossLaw, fit_loss, hold_out

__all__ = ["LossLaw", "fit_loss", "hold_out"]


def __getattr__(name: str) -> Any:
    """Imports SciPy with the law that needs it, and not before."""
    if name in __all__:
        return getattr(import_module("analysis.laws.loss"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
