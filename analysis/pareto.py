"""Pareto fronts: the points no other point beats in every objective."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pareto_mask(points: Sequence[Sequence[float]], directions: Sequence[str]) -> np.ndarray:
    """Marks the points that no other point dominates.

    A point dominates another if it is at least as good in every objective and better in one; equal points
    do not dominate each other. A point with a value that is not finite is never on the front and
    dominates nothing.

    Args:
        points: n points of m objectives.
        directions: ``"max"`` or ``"min"`` per objective.

    Returns:
        Boolean array of shape (n,).

    Raises:
        ValueError: a direction is neither max nor min, or the points have another number of objectives.

    """
    if bad := [d for d in directions if d not in ("max", "min")]:
        raise ValueError(f"a direction must be 'max' or 'min', got {bad[0]!r}")
    if len(points) == 0:
        return np.zeros(0, dtype=bool)
    costs = np.asarray(points, dtype=float)
    if costs.ndim != 2 or costs.shape[1] != len(directions):
        raise ValueError(f"expected points of {len(directions)} objectives, got shape {costs.shape}")
    costs = costs * np.array([1.0 if d == "min" else -1.0 for d in directions])
    finite = np.isfinite(costs).all(axis=1)
    # In lexicographic order a point can only be dominated by an earlier one, and then by one on the front.
    order = [int(i) for i in np.lexsort(costs.T[::-1]) if finite[i]]
    mask = np.zeros(len(costs), dtype=bool)
    front: list[int] = []
    for i in order:
        kept = costs[front]
        beaten = (kept <= costs[i]).all(axis=1) & (kept < costs[i]).any(axis=1)
        if not beaten.any():
            mask[i] = True
            front.append(i)
    return mask
