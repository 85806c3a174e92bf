"""Fits the numbers of L(N, D) = E + A/N^a + B/D^b to rows, for many weightings of the rows at once.

`starting_laws` searches the two exponents and solves for the rest, which is linear; `refine` improves all
five numbers together. Both work on logarithms, so every number of the law stays positive.

Legend of shapes: R laws, n rows. The columns of (R, 5) laws are log E, log A, log B, a, b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

Array = npt.NDArray[np.float64]

HUBER = 1e-3
"""Smallest residual of log L at which Huber's loss turns from squared to absolute (Hoffmann et al. 2022)."""
EXPONENTS = np.linspace(0.02, 1.2, 25)
"""The exponents that the search starts from."""
LIMITS = np.array([[-30.0, 12.0], [-10.0, 80.0], [-10.0, 80.0], [0.005, 2.5], [0.005, 2.5]])
"""Bounds of (log E, log A, log B, a, b)."""
STEPS = 60
"""Most steps of the refinement; it stops earlier once nothing moves."""


@dataclass(frozen=True)
class Rows:
    """(n,) rows in logarithms; sizes and data relative to their geometric means."""

    n: Array
    d: Array
    y: Array


def starting_laws(rows: Rows) -> Array:
    """Return the best starts, (R, 5), by variable projection: on a grid of exponents, linear in E, A and B.

    A relative error of L is, to first order, an error of log L; so rows are weighted by 1/L.
    """
    weight = np.exp(-rows.y)
    found = []
    for a in EXPONENTS:
        for b in EXPONENTS:
            columns = np.stack([np.ones_like(rows.n), np.exp(-a * rows.n), np.exp(-b * rows.d)], 1)
            solution, norm = nnls(columns * weight[:, None], np.ones_like(rows.y))
            found.append((norm, *np.log(np.maximum(solution, 1e-12)), a, b))
    found.sort()
    return np.clip(np.array(found[:12])[:, 1:], LIMITS[:, 0], LIMITS[:, 1])


def log_losses(theta: Array, rows: Rows) -> Array:
    """(R, n) log L of (R, 5) laws."""
    return np.logaddexp.reduce(_terms(theta, rows), axis=2)


def _terms(theta: Array, rows: Rows) -> Array:
    """(R, n, 3) logarithms of the law's three terms."""
    e, big_a, big_b, a, b = (theta[:, i, None] for i in range(5))
    return np.stack(np.broadcast_arrays(e, big_a - a * rows.n, big_b - b * rows.d), axis=2)


def refine(theta: Array, rows: Rows, weights: Array, delta: float) -> tuple[Array, Array]:
    """Minimize Huber's loss on log L by Levenberg–Marquardt, all R problems at once.

    Returns:
        (R, 5) laws and (R,) losses.
    """
    theta = theta.copy()
    damping = np.full(len(theta), 1e-3)
    cost = _cost(theta, rows, weights, delta)
    for _ in range(STEPS if len(theta) else 0):
        terms = _terms(theta, rows)
        log_l = np.logaddexp.reduce(terms, axis=2)
        share = np.exp(terms - log_l[..., None])
        residual = rows.y - log_l
        jacobian = np.stack(
            [*(share[..., i] for i in range(3)), -share[..., 1] * rows.n, -share[..., 2] * rows.d], axis=2
        )
        robust = weights * np.minimum(1.0, delta / np.maximum(np.abs(residual), 1e-300))
        gradient = np.einsum("rnp,rn->rp", jacobian, robust * residual)
        hessian = np.einsum("rnp,rn,rnq->rpq", jacobian, robust, jacobian)
        diagonal = np.einsum("rpp->rp", hessian)
        damped = hessian + np.einsum("rp,pq->rpq", damping[:, None] * diagonal + 1e-14, np.eye(5))
        step = np.linalg.solve(damped, gradient[..., None])[..., 0]
        tried = np.clip(theta + step, LIMITS[:, 0], LIMITS[:, 1])
        new = _cost(tried, rows, weights, delta)
        better = new < cost
        moved = better & (np.abs(tried - theta).max(1) > 1e-9)
        theta[better], cost[better] = tried[better], new[better]
        damping = np.clip(np.where(better, damping / 4, damping * 6), 1e-12, 1e12)
        if not moved.any() and damping.min() > 1:
            break
    return theta, cost


def _cost(theta: Array, rows: Rows, weights: Array, delta: float) -> Array:
    """(R,) weighted sums of Huber's loss on the residuals of log L."""
    size = np.abs(rows.y - log_losses(theta, rows))
    huber = np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))
    return (weights * huber).sum(1)
