"""One quantity that falls towards a floor as another grows: y = E + A/x^p.

The law of loss along one axis: loss over compute, or over size at fixed data. For a given exponent it is
linear in E and A, so the exponent alone is searched (variable projection), for all resamples at once.

Legend of shapes: R resamples, n points, P exponents.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from analysis.laws.least_loss import Array
from analysis.laws.loss import LawError, drawn

NAMES = ("E", "A", "p")
EXPONENTS = np.geomspace(0.01, 3, 160)


@dataclass(frozen=True, kw_only=True)
class Saturating:
    """A fitted law y = E + A/x^p.

    Attributes:
        E: What y falls to.
        A: Coefficient, in the unit of y.
        p: Exponent of x.
        n: Points behind it.
        samples: (R, 3) the same numbers fitted to R resamples.
    """

    E: float
    A: float
    p: float
    n: int
    samples: Array = field(repr=False)

    def at(self, x: Array | float) -> Array:
        """The value at x."""
        return self.E + self.A * np.asarray(x, float) ** -self.p

    def interval(self, name: str, level: float = 0.9) -> tuple[float, float]:
        """The interval of one of the three numbers, from the quantiles of the resamples."""
        low, high = np.quantile(self.samples[:, NAMES.index(name)], [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


def fit_saturating(
    x: Sequence[float] | Array,
    y: Sequence[float] | Array,
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 400,
) -> Saturating:
    """Fit y = E + A/x^p with E and A of at least 0, to relative errors of y.

    Args:
        x: (n,) positive.
        y: (n,) positive.
        groups: (n,) what is drawn together in a resample; None draws points.
        resamples: How many resamples the intervals come from.

    Returns:
        The law.

    Raises:
        LawError: Fewer than four points or three different x, or numbers that are not positive and finite.
    """
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    if len(xs) < 4 or len(np.unique(xs)) < 3:
        raise LawError(
            f"y = E + A/x^p needs four points at three different x; received {len(xs)} points at "
            f"{len(np.unique(xs))}"
        )
    if not (np.isfinite(xs).all() and np.isfinite(ys).all() and (xs > 0).all() and (ys > 0).all()):
        raise LawError("y = E + A/x^p needs positive and finite numbers. Leave the others out")
    labels = list(range(len(xs))) if groups is None else list(groups)
    counts = drawn(labels, resamples, np.random.default_rng(0))
    weights = np.concatenate([np.ones((1, len(xs))), counts]) / ys**2
    center = float(np.log(xs).min())
    log_x = np.log(xs) - center  # at least 0, so that no power of x overflows
    cost, _, _ = _project(np.broadcast_to(EXPONENTS, (len(weights), len(EXPONENTS))), log_x, ys, weights)
    near = np.log(EXPONENTS)[cost.argmin(1)]
    width = np.log(EXPONENTS[1] / EXPONENTS[0])
    finer = np.exp(near[:, None] + np.linspace(-width, width, 41))
    cost, e, a = _project(finer, log_x, ys, weights)
    best = cost.argmin(1)[:, None]
    e, a, p = (np.take_along_axis(values, best, 1)[:, 0] for values in (e, a, finer))
    found = np.stack([e, a * np.exp(p * center), p], 1)
    return Saturating(
        E=float(found[0, 0]), A=float(found[0, 1]), p=float(found[0, 2]), n=len(xs), samples=found[1:]
    )


def _project(exponents: Array, log_x: Array, y: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Cost, E and A, each (R, P), of the best law at each of (R, P) exponents under (R, n) weights."""
    u = np.exp(-exponents[..., None] * log_x)
    s1, sy, syy = (np.einsum("rn,n->r", weights, v)[:, None] for v in (np.ones_like(y), y, y * y))
    su = np.einsum("rn,rpn->rp", weights, u)
    suu = np.einsum("rn,rpn->rp", weights, u * u)
    suy = np.einsum("rn,rpn,n->rp", weights, u, y)
    determinant = np.maximum(s1 * suu - su**2, 1e-300)
    e, a = (suu * sy - su * suy) / determinant, (s1 * suy - su * sy) / determinant
    low_e, low_a = e < 0, a < 0
    e = np.where(low_a, sy / s1, np.where(low_e, 0.0, e))
    a = np.where(low_a, 0.0, np.where(low_e, suy / suu, a))
    with np.errstate(over="ignore", invalid="ignore"):  # where a power falls to 0, A has no end
        cost = syy - 2 * (e * sy + a * suy) + e * e * s1 + 2 * e * a * su + a * a * suu
    return np.where(np.isfinite(cost), cost, np.inf), e, a
