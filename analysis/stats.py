"""Means with bootstrap intervals, and a permutation test.

The mean of seeds or of paired differences is reported with a 95 % percentile bootstrap interval (Efron,
1979) and its n. Below three values there is no interval: a resample of two says nothing of the spread.

Both give what `scipy.stats.bootstrap` and `scipy.stats.permutation_test` give, which tests compare. They
stand here because importing `scipy.stats` takes longer than a whole report of a small store, and because a
report asks for the intervals of thousands of means at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

import numpy as np

T = TypeVar("T")
Row = dict[str, Any]
"""One row of the trials view."""

MIN_FOR_INTERVAL = 3
RESAMPLES, FEWEST_RESAMPLES = 2000, 200
LEVEL = 0.95
_DRAWS = 2_000_000
"""Values that are drawn for an interval at most: of more than a thousand values it takes fewer resamples."""
_FEW = 64
"""Values up to which a resample is held as the weight of each value."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its 95 % interval (None below three values) and the number of values behind it."""

    mean: float
    low: float | None
    high: float | None
    n: int


def finite(value: Any) -> TypeGuard[float]:
    """Whether a cell holds a number that can be plotted: not null, NaN or infinite."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def estimate(values: Iterable[float | None], *, resamples: int = RESAMPLES) -> Estimate | None:
    """The mean of the finite values with a bootstrap interval.

    The resampling is seeded, and the order of the values does not count: equal values give equal intervals.

    Returns:
        None if no value is finite.

    """
    return estimates([values], resamples=resamples)[0]


def estimates(
    groups: Iterable[Iterable[float | None]], *, resamples: int = RESAMPLES
) -> list[Estimate | None]:
    """As `estimate`, of many groups of values at once."""
    kept = [sorted(float(v) for v in group if finite(v)) for group in groups]
    found: list[Estimate | None] = [None] * len(kept)
    for n, places in group_by(range(len(kept)), lambda place: len(kept[place])).items():
        if not n:
            continue
        values = np.array([kept[place] for place in places])
        low, high = _interval(values, resamples)
        for place, mean, first, last in zip(places, values.mean(axis=1), low, high, strict=True):
            spread = n >= MIN_FOR_INTERVAL
            found[place] = Estimate(
                mean=float(mean),
                low=float(first) if spread else None,
                high=float(last) if spread else None,
                n=n,
            )
    return found


def _interval(values: np.ndarray, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the intervals of some means of n values each; `values` has the shape (means, n)."""
    count, n = values.shape
    if n < MIN_FOR_INTERVAL:
        return values[:, 0], values[:, 0]
    resamples = min(resamples, max(FEWEST_RESAMPLES, _DRAWS // n))
    draws = np.random.default_rng(0).integers(n, size=(resamples, n))
    step = max(1, _DRAWS // resamples)
    parts = (values[first : first + step] for first in range(0, count, step))
    if n <= _FEW:
        # The weight of each value in the mean of each resample.
        weights = np.stack([(draws == place).mean(axis=1) for place in range(n)])
        means = (part @ weights for part in parts)
    else:
        means = (np.stack([one[draws].mean(axis=1) for one in part]) for part in parts)
    ends = [np.quantile(part, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1) for part in means]
    low, high = np.concatenate(ends, axis=1)
    same = values[:, 0] == values[:, -1]
    return np.where(same, values[:, 0], low), np.where(same, values[:, 0], high)


def sign_flip_p(differences: Iterable[float | None]) -> float:
    """How often paired differences would be as far from 0 on average if only chance gave them their signs.

    The exact two-sided test over all 2^n signs (Fisher, 1935) of up to 16 finite values; of more, over 20,000
    seeded draws. With fewer than 6 values it cannot fall below 0.05, so it cannot tell anything from chance.

    Returns:
        A share, 0 to 1; 1 for no values.

    """
    kept = np.array(sorted(float(d) for d in differences if finite(d)))
    n = len(kept)
    if n <= 16:
        found = _signs((np.arange(2**n)[:, None] >> np.arange(n)) & 1) @ kept
    else:
        random = np.random.default_rng(0)
        found = np.concatenate(
            [_signs(random.integers(2, size=(1_000, n), dtype=np.int8)) @ kept for _ in range(20)]
        )
    return float(np.mean(np.abs(found) >= abs(kept.sum()) * (1 - 1e-12)))


def _signs(bits: np.ndarray) -> np.ndarray:
    """1.0 where a bit is 0 and -1.0 where it is 1."""
    return 1.0 - 2.0 * bits


def group_by(items: Iterable[T], key: Callable[[T], Hashable]) -> dict[Any, list[T]]:
    """Groups items by a key, keeping their order."""
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def sample(items: Sequence[T], at_most: int) -> list[T]:
    """At most so many items, spread evenly over the list, always the same ones."""
    if len(items) <= at_most:
        return list(items)
    step = len(items) / at_most
    return [items[int(i * step)] for i in range(at_most)]
