"""Fits the numbers of L(N, D) = E + A/N^a + B/D^b to rows, for many weightings of the rows at once.

`starting_laws` searches the two exponents and solves for the rest, which is linear; `refine` improves all
five numbers together. Both work on logarithms, so every number of the law stays positive.

Legend of shapes: R laws, n rows. The columns of (R, 5) laws are log E, log A, log B, a, b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

HUBER = 1e-3
"""Smallest residual of log L at which Huber's loss turns from squared to absolute (Hoffmann et al. 2022)."""
EXPONENTS = np.linspace(0.02, 1.2, 25)
"""The exponents that the search starts from."""
LIMITS = np.array([[-30.0, 12.0], [-10.0, 80.0], [-10.0, 80.0], [0.005, 2.5], [0.005, 2.5]])
"""Bounds of (log E, log A, log B, a, b)."""
SAMPLE = 600
"""Rows that the search of the start looks at, at most, evenly spread over size and data."""
STEPS = 60
"""Most steps of the refinement; it stops earlier once nothing moves."""
MOST_DAMPING = 1e3
"""A step that is damped more and still does not help ends the refinement."""


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
    if len(rows.y) > SAMPLE:
        order = np.lexsort((rows.d, rows.n))
        taken = order[np.linspace(0, len(order) - 1, SAMPLE).astype(int)]
        rows = Rows(rows.n[taken], rows.d[taken], rows.y[taken])
    a, b = (axis.ravel() for axis in np.meshgrid(EXPONENTS, EXPONENTS, indexing="ij"))
    columns = np.exp(
        np.stack([np.zeros((len(a), len(rows.n))), -np.outer(a, rows.n), -np.outer(b, rows.d)], axis=2)
        - rows.y[:, None]
    )
    solution, cost = _nonnegative(columns)
    order = np.argsort(cost)[:12]
    found = np.column_stack([np.log(np.maximum(solution, 1e-12)), a, b])[order]
    return np.clip(found, LIMITS[:, 0], LIMITS[:, 1])


def _nonnegative(columns: Array) -> tuple[Array, Array]:
    """Solve columns · x = 1 by least squares with x of at least 0.

    With three unknowns every set of those above 0 can be tried; the best of the solutions that keep the sign
    is the one.

    Args:
        columns: (P, n, 3) columns of P problems.

    Returns:
        (P, 3) solutions and (P,) sums of squares.
    """
    size = np.linalg.norm(columns, axis=1)
    scaled = columns / size[:, None]
    gram, target = np.einsum("pni,pnj->pij", scaled, scaled), scaled.sum(1)
    best = np.zeros_like(target)
    cost = np.full(len(columns), float(columns.shape[1]))
    for kept in ([0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]):
        part = gram[:, kept][:, :, kept] + 1e-12 * np.eye(len(kept))
        x = np.zeros_like(target)
        x[:, kept] = np.linalg.solve(part, target[:, kept, None])[..., 0]
        new = ((np.einsum("pni,pi->pn", scaled, x) - 1) ** 2).sum(1)
        better = (x >= 0).all(1) & (new < cost)
        best[better], cost[better] = x[better], new[better]
    return best / size, cost


def log_losses(theta: Array, rows: Rows) -> Array:
    """(R, n) log L of (R, 5) laws."""
    first, second, third = _terms(theta, rows)
    return np.log(first + second + third)


def _terms(theta: Array, rows: Rows) -> tuple[Array, Array, Array]:
    """The law's three terms: (R, 1), (R, n), (R, n). `LIMITS` keep them within the range of float64."""
    e, big_a, big_b, a, b = (theta[:, i, None] for i in range(5))
    return np.exp(e), np.exp(big_a - a * rows.n), np.exp(big_b - b * rows.d)


def refine(theta: Array, rows: Rows, weights: Array, delta: float) -> tuple[Array, Array]:
    """Minimize Huber's loss on log L by Levenberg–Marquardt, all R problems at once.

    A problem that moves no more leaves the others alone.

    Returns:
        (R, 5) laws and (R,) losses.
    """
    theta = theta.copy()
    damping = np.full(len(theta), 1e-3)
    cost = _cost(theta, rows, weights, delta)
    left = np.arange(len(theta))
    for _ in range(STEPS):
        if not len(left):
            break
        step = _step(theta[left], rows, weights[left], damping[left], delta)
        tried = np.clip(theta[left] + step, LIMITS[:, 0], LIMITS[:, 1])
        new = _cost(tried, rows, weights[left], delta)
        better = new < cost[left]
        moved = better & (np.abs(tried - theta[left]).max(1) > 1e-7)
        done, took = left[better], tried[better]
        theta[done], cost[done] = took, new[better]
        damping[left] = np.clip(np.where(better, damping[left] / 4, damping[left] * 6), 1e-12, 1e12)
        left = left[moved | (~better & (damping[left] <= MOST_DAMPING))]
    return theta, cost


def _step(theta: Array, rows: Rows, weights: Array, damping: Array, delta: float) -> Array:
    """(R, 5) steps of Levenberg–Marquardt."""
    first, second, third = _terms(theta, rows)
    total = first + second + third
    residual = rows.y - np.log(total)
    second, third = second / total, third / total
    jacobian = np.stack([first / total, second, third, -second * rows.n, -third * rows.d], axis=1)
    robust = weights * np.minimum(1.0, delta / np.maximum(np.abs(residual), 1e-300))
    weighted = jacobian * robust[:, None]
    gradient = weighted @ residual[..., None]
    hessian = weighted @ jacobian.transpose(0, 2, 1)
    diagonal = np.einsum("rpp->rp", hessian)
    damped = hessian + (damping[:, None] * diagonal + 1e-14)[:, None] * np.eye(5)
    return np.linalg.solve(damped, gradient)[..., 0]


def _cost(theta: Array, rows: Rows, weights: Array, delta: float) -> Array:
    """(R,) weighted sums of Huber's loss on the residuals of log L."""
    size = np.abs(rows.y - log_losses(theta, rows))
    inner = np.minimum(size, delta)
    return np.einsum("rn,rn->r", weights, inner * (size - 0.5 * inner))
