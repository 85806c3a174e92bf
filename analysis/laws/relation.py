"""How one numeric column grows or falls with another: a power law, and a law with a floor."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from analysis.errors import AnalysisError
from analysis.laws.growth import Bend, fit_bend
from analysis.laws.loss import LawError, drawn
from analysis.laws.saturating import Saturating, fit_saturating
from analysis.schema import TRIALS
from analysis.stats import group_by

if TYPE_CHECKING:
    from analysis.store.store import Store

RESAMPLES = 1000
_SETTINGS = (
    *("data", "family", "depth", "width", "strategy", "compute_dtype", "stream_dtype", "coupling"),
    *("coupling_rule", "batch_size", "optimizer", "learning_rate", "schedule"),
)


class RelationError(AnalysisError):
    """Columns that are none, are no numbers, or hold none."""


@dataclass(frozen=True, kw_only=True)
class Relation:
    """y over x in one group of trials.

    Attributes:
        group: What its trials share, by column.
        trials: How many there are with an x and a y above 0.
        zeros: Trials whose y is exactly 0, which no power law holds.
        power: y = coefficient·x^power; None below three trials or two different x.
        low: Lower end of the 90 % interval of the power, by bootstrap over trials.
        high: Upper end.
        coefficient: Of the power law.
        bend: Whether one power holds over the whole range.
        floor: y = E + A/x^p where y falls; None where it does not, or there are too few trials.
        differ: Other settings that differ within the group.
    """

    group: dict[str, Any]
    trials: int
    zeros: int
    power: float | None
    low: float | None
    high: float | None
    coefficient: float | None
    bend: Bend | None
    floor: Saturating | None
    differ: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a machine to read."""
        floor = self.floor
        return {
            "group": self.group,
            "trials": self.trials,
            "zeros": self.zeros,
            "power": None
            if self.power is None
            else {"value": self.power, "low": self.low, "high": self.high},
            "coefficient": self.coefficient,
            "bends": None if self.bend is None else self.bend.significant,
            "power_at_ends": None if self.bend is None else [self.bend.first, self.bend.last],
            "floor": None
            if floor is None
            else {
                name: {"value": getattr(floor, name), "low": low, "high": high}
                for name in ("E", "A", "p")
                for low, high in [floor.interval(name)]
            },
            "differ": list(self.differ),
        }


def fit_relation(
    store: Store, x: str, y: str, *, by: Sequence[str] = (), where: str | None = None
) -> list[Relation]:
    """Fit how `y` goes with `x`, in each group of trials that ended ok.

    Args:
        store: The rows.
        x: A numeric column of trials.
        y: Another.
        by: Columns whose values make the groups; none makes one group.
        where: A condition in SQL on the columns of ``trials``.

    Returns:
        One relation a group, the groups in the order of their values.

    Raises:
        RelationError: There is no such column, it holds no numbers, or no trial has both.
    """
    for name in (x, y, *by):
        _check_column(name, numeric=name not in by)
    columns = list(dict.fromkeys([x, y, *by, *(c for c in _SETTINGS if c in TRIALS.types)]))
    condition = f" AND ({where})" if where else ""
    rows = store.sql(
        f"SELECT {', '.join(columns)} FROM trials WHERE outcome = 'ok' AND {x} > 0 AND {y} >= 0 "
        f"AND isfinite({x}::DOUBLE) AND isfinite({y}::DOUBLE){condition}"
    ).to_pylist()
    if not rows:
        raise RelationError(
            f"no trial that ended ok has both {x} above 0 and {y}: `revstudy describe trials` says what each "
            "column is and when it is empty"
        )
    groups = group_by(rows, lambda row: tuple(row[name] for name in by))
    ordered = sorted(groups.items(), key=lambda item: tuple(str(value) for value in item[0]))
    return [_relation(dict(zip(by, key, strict=True)), group, x, y) for key, group in ordered]


def _relation(group: dict[str, Any], rows: list[dict[str, Any]], x: str, y: str) -> Relation:
    xs, ys = (np.array([row[name] for row in rows if row[y] > 0], float) for name in (x, y))
    power = low = high = coefficient = floor = None
    if len(xs) >= 3 and len(np.unique(xs)) >= 2:
        power, low, high, coefficient = _power(np.log(xs), np.log(ys))
        if power < 0:
            try:
                floor = fit_saturating(xs, ys)
            except LawError:
                floor = None
    differ = [
        name for name in rows[0] if name not in (x, y, *group) and len({str(row[name]) for row in rows}) > 1
    ]
    return Relation(
        group=group,
        trials=len(xs),
        zeros=len(rows) - len(xs),
        power=power,
        low=low,
        high=high,
        coefficient=coefficient,
        bend=fit_bend(xs.tolist(), ys.tolist()),
        floor=floor,
        differ=tuple(differ),
    )


def _power(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float, float]:
    """Slope in logarithms with its 90 % interval, and the coefficient."""
    counts = drawn(list(range(len(x))), RESAMPLES, np.random.default_rng(0))
    weights = np.concatenate([np.ones((1, len(x))), counts])
    total = weights.sum(1)
    mean_x, mean_y = weights @ x / total, weights @ y / total
    spread = weights @ (x * x) / total - mean_x**2
    with np.errstate(invalid="ignore", divide="ignore"):
        slopes = (weights @ (x * y) / total - mean_x * mean_y) / np.where(spread > 1e-12, spread, np.nan)
    low, high = np.nanquantile(slopes[1:], [0.05, 0.95])
    return float(slopes[0]), float(low), float(high), float(np.exp(mean_y[0] - slopes[0] * mean_x[0]))


def _check_column(name: str, *, numeric: bool) -> None:
    if name not in TRIALS.types:
        near = difflib.get_close_matches(name, TRIALS.types, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`revstudy describe trials` lists them"
        raise RelationError(f"trials have no column {name!r}: {hint}")
    kind = TRIALS.types[name]
    if numeric and not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise RelationError(f"a law needs numbers, and the column {name!r} holds {kind}")
