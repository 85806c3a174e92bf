"""When gradients from rebuilt activations count as faithful: the one rule, for cards, figures and sentences.

A gradient is faithful if its relative error against the stored one is at most `GRADIENT_LIMIT`, for every
parameter, in every trial (a median over seeds would hide the one that is off). An error that is no finite
number is not faithful. The rule asks for gradients and not for rebuilt activations, because training sees
gradients alone. It is stricter than the angle of one degree that the test of the paper's code allows, which
is a relative error of 1.7 % or more; that angle judges the paper's own claims, and nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Literal

from analysis.stats import Row
from analysis.strategies import inverts, is_exact

GRADIENT_LIMIT = 0.01
"""Relative error of a gradient up to which it is faithful: far below the noise between two batches."""

LIMIT_TEXT = f"{100 * GRADIENT_LIMIT:g} %"

PAPER_ANGLE_DEG = 1.0
"""Largest angle between gradients that the test of the paper's code allows: the bar of the paper's claims."""

Fidelity = Literal["exact", "faithful", "unfaithful", "not probed"]


def worst(errors: Iterable[float | None]) -> float | None:
    """The largest error, infinite where one is no number; None where nothing was measured."""
    return max((math.inf if math.isnan(e) else e for e in errors if e is not None), default=None)


def is_faithful(error: float) -> bool:
    """Whether a relative error of a gradient is within the limit; NaN is not."""
    return error <= GRADIENT_LIMIT


def rebuilds_nothing(row: Row) -> bool:
    """Whether a trial that reverses was probed and had nothing to rebuild, as stages of one unit have not."""
    if not inverts(row["strategy"]) or row["outcome"] != "ok" or row.get("parallel") == "fsdp2":
        return False
    if row["reconstruction_rel_error"] is not None or row["gradient_rel_error"] is not None:
        return False
    try:
        return bool(json.loads(row.get("config_json") or "{}").get("probe"))
    except (ValueError, AttributeError):
        return False


def fidelity(rows: Iterable[Row]) -> Fidelity:
    """How the gradients of the trials of one configuration compare with those of storing."""
    rows = list(rows)
    error = worst(r["gradient_rel_error"] for r in rows)
    if error is not None:
        return "faithful" if is_faithful(error) else "unfaithful"
    exact = all(is_exact(r["strategy"]) or rebuilds_nothing(r) for r in rows)
    return "exact" if exact else "not probed"
