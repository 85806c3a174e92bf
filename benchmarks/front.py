"""Which ways of training are on the front of memory and time, what beats the others, and what it covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.pareto import pareto_mask

MOST_BYTES, MOST_TIME = 1.0, 2.0
"""The corner that hypervolumes are measured to: the bytes of storing, and twice its time."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """One way of training on one subject.

    Attributes:
        name: of the contender. bytes: at the peak. seconds: of its steps, one in each round. beaten_by: the
        contender on the front that takes no more of either and least of both together; empty on
            the front.

    """

    name: str
    bytes: int
    seconds: tuple[float, ...]
    beaten_by: str = ""


def ratio(above: Sequence[float], below: Sequence[float]) -> tuple[float, float, float]:
    """The median over rounds of one contender's time over another's, with a 95 % bootstrap interval."""
    shares = np.array(above) / np.array(below)
    draws = np.random.default_rng(0).integers(len(shares), size=(2000, len(shares)))
    low, high = np.quantile(np.median(shares[draws], axis=1), (0.025, 0.975))
    return float(np.median(shares)), float(low), float(high)


def placed(rows: Sequence[dict[str, Any]], bytes_of: str = "measured_bytes") -> list[Placed]:
    """The rows of one subject, the smallest first, each with what beats it.

    Args:
        rows: of `benchmarks.strategies`, ``store`` among them.
        bytes_of: the column of bytes: of everything, or of activations.

    Returns:
        Every row; times are compared by the median of the ratios to storing.

    """
    stored = next(row["times_s"] for row in rows if row["contender"] == "store")
    points = [(row[bytes_of], ratio(row["times_s"], stored)[0]) for row in rows]
    mask = pareto_mask(points, ("min", "min"))
    front = [(point, row) for point, row, best in zip(points, rows, mask, strict=True) if best]
    found = []
    for (size, time), row, best in zip(points, rows, mask, strict=True):
        by = "" if best else _beating(size, time, front)
        found.append(Placed(name=row["contender"], bytes=size, seconds=tuple(row["times_s"]), beaten_by=by))
    return sorted(found, key=lambda one: (one.bytes, one.name))


def _beating(size: int, time: float, front: Sequence[tuple[tuple[int, float], dict[str, Any]]]) -> str:
    better = [(s * t, row["contender"]) for (s, t), row in front if s <= size and t <= time]
    return min(better)[1]


def hypervolume(points: Sequence[tuple[float, float]]) -> float:
    """The area that a front covers, of shares of storing's bytes and of storing's time.

    Args:
        points: (share of bytes, share of time); those beyond the corner cover nothing.

    Returns:
        The share of the rectangle from (0, 0) to the corner (`MOST_BYTES`, `MOST_TIME`) that is no better
        than some point: 0 without any, and more the better.

    """
    area, edge = 0.0, MOST_TIME
    for size, time in sorted(points):  # the smallest, and so the slowest of a front, first
        if size < MOST_BYTES and time < edge:
            area, edge = area + (MOST_BYTES - size) * (edge - time), time
    return area / (MOST_BYTES * MOST_TIME)


def covered(ways: Sequence[Placed]) -> float:
    """The hypervolume of contenders, ``store`` among them."""
    stored = next(one for one in ways if one.name == "store")
    return hypervolume([(one.bytes / stored.bytes, ratio(one.seconds, stored.seconds)[0]) for one in ways])
