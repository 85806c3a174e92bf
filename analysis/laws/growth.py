"""Growth with depth: lines through comparable points with an interval, and whether one line will do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def _reach(error: float, free: int) -> float:
    """Half of a 95 % interval, by Student's t with `free` degrees of freedom."""
    from scipy.special import stdtrit  # takes longer to import than most verbs take that need no interval

    return float(stdtrit(free, 0.975)) * error


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A least-squares line y = intercept + slope·x with the 95 % interval of its slope.

    The interval is None below three points. `n` counts the points, `distinct` the different x.
    """

    slope: float
    intercept: float
    low: float | None
    high: float | None
    n: int
    distinct: int

    def at(self, x: float) -> float:
        """The line's value at x, in the fit's own scale."""
        return self.intercept + self.slope * x


@dataclass(frozen=True, kw_only=True)
class Bend:
    """Whether a power law holds over the whole range, from a parabola through log10 x and log10 y.

    The curvature has a 95 % interval; a bend is significant if that excludes 0 and the local power changes by
    more than `BEND` between the ends. `first` and `last` are the local powers there.
    """

    first: float
    last: float
    curvature: float
    low: float
    high: float
    n: int

    @property
    def significant(self) -> bool:
        """Whether growth at the large end follows another law than at the small one."""
        return (self.low > 0 or self.high < 0) and abs(self.last - self.first) > BEND


BEND = 0.5
"""Powers that differ by less are one regime: sums of rounding errors grow with the power 0.5 to 1."""


def power_text(fit: Fit, bend: Bend | None = None) -> str:
    """Return a power with its 95 % interval and n, and how it changes if one power law will not do.

    >>> power_text(Fit(slope=1.2, intercept=0.0, low=0.9, high=1.5, n=8, distinct=4))
    '1.20 (0.90 to 1.50, n = 8)'
    """
    if fit.low is None or fit.high is None:
        text = f"{fit.slope:.2f} (n = {fit.n}, too few for an interval)"
    else:
        text = f"{fit.slope:.2f} ({fit.low:.2f} to {fit.high:.2f}, n = {fit.n})"
    if bend is not None and bend.significant:
        text += f" and no single power law: {bend.first:.2f} at the small end, {bend.last:.2f} at the large"
    return text


def fit_line(x: Sequence[float], y: Sequence[float]) -> Fit | None:
    """Fits a line by least squares; None with fewer than two different finite x."""
    pairs = [(float(a), float(b)) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    distinct = len({a for a, _ in pairs})
    if distinct < 2:
        return None
    xs, ys = np.array(pairs).T
    centered = xs - xs.mean()
    spread = float((centered**2).sum())
    slope = float((centered * (ys - ys.mean())).sum()) / spread
    intercept = float(ys.mean()) - slope * float(xs.mean())
    free = len(xs) - 2
    low = high = None
    if free > 0:
        residual = ys - intercept - slope * xs
        error = math.sqrt(float((residual**2).sum()) / free / spread)
        reach = _reach(error, free)
        low, high = slope - reach, slope + reach
    return Fit(slope=slope, intercept=intercept, low=low, high=high, n=len(xs), distinct=distinct)


def fit_power(x: Sequence[float], y: Sequence[float]) -> Fit | None:
    """Fits y = c·x^slope as a line in log10 x and log10 y, over the points where both are positive."""
    pairs = [(math.log10(a), math.log10(b)) for a, b in zip(x, y, strict=True) if a > 0 and b > 0]
    return fit_line([a for a, _ in pairs], [b for _, b in pairs])


def fit_bend(x: Sequence[float], y: Sequence[float]) -> Bend | None:
    """Looks for a change of regime; None below four positive points or three different x."""
    pairs = [(math.log10(a), math.log10(b)) for a, b in zip(x, y, strict=True) if a > 0 and b > 0]
    if len({a for a, _ in pairs}) < 3 or len(pairs) < 4:
        return None
    xs, ys = np.array(pairs).T
    center = float(xs.mean())
    design = np.stack([np.ones_like(xs), xs - center, (xs - center) ** 2], axis=1)
    solution, *_ = np.linalg.lstsq(design, ys, rcond=None)
    free = len(xs) - 3
    residual = float(((ys - design @ solution) ** 2).sum())
    error = math.sqrt(residual / free * float(np.linalg.inv(design.T @ design)[2, 2]))
    reach = _reach(error, free)
    slope, curvature = float(solution[1]), float(solution[2])
    return Bend(
        first=slope + 2 * curvature * (float(xs.min()) - center),
        last=slope + 2 * curvature * (float(xs.max()) - center),
        curvature=curvature,
        low=curvature - reach,
        high=curvature + reach,
        n=len(xs),
    )
