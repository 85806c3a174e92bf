"""IsoFLOP curves: loss over size at equal compute, with the parabola that is usually put through them.

Approach 2 of Hoffmann et al. 2022 (arXiv 2203.15556). A parabola in log N is only near its vertex what a sum
of two powers is, so its vertex lies off the law's own optimum even without noise (arXiv 2603.22339). Here
parabolas are a picture, and their `bias` stands beside them: the same parabola is put through the losses that
the fitted law gives at the same sizes, and its vertex divided by the size that the law itself prefers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from analysis.laws.efficient import best_size
from analysis.laws.least_loss import Array
from analysis.laws.loss import LossLaw
from analysis.laws.observations import Observations

NEAR = 1.25
"""Trainings whose compute differs by less than this factor stand on one curve."""


@dataclass(frozen=True, kw_only=True)
class IsoFlop:
    """One curve of equal compute.

    Attributes:
        compute: Its compute C, the geometric mean of its points.
        parameters: (k,) sizes N, ascending.
        loss: (k,) mean losses, each moved along the law to exactly this compute.
        trial_ids: (k) the trainings behind each.
        coefficients: Of the parabola in log N, highest power first.
        best: The vertex; None where the parabola opens downwards.
        bias: Vertex over the law's own optimum, for losses without noise; None where that has no vertex.
    """

    compute: float
    parameters: Array
    loss: Array
    trial_ids: tuple[tuple[str, ...], ...]
    coefficients: tuple[float, float, float]
    best: float | None
    bias: float | None

    @property
    def inside(self) -> bool:
        """Whether the vertex lies between the smallest and the largest size."""
        return self.best is not None and self.parameters[0] <= self.best <= self.parameters[-1]

    def at(self, parameters: Array) -> Array:
        """The parabola at sizes."""
        return np.asarray(np.polyval(self.coefficients, np.log(parameters)), float)


def isoflops(points: Observations, law: LossLaw) -> list[IsoFlop]:
    """Group points of equal compute and put a parabola through each group of at least three sizes.

    Args:
        points: Points of finished and unfinished trainings.
        law: The law that was fitted to them.

    Returns:
        The curves, by compute.
    """
    found = []
    for level in _levels(points.compute):
        sizes, place = np.unique(points.parameters[level], return_inverse=True)
        if len(sizes) < 3:
            continue
        compute = float(np.exp(np.log(points.compute[level]).mean()))
        n, d = points.parameters[level], points.data[level]
        there = d * compute / points.compute[level]
        moved = points.loss[level] * law.predict(n, there) / law.predict(n, d)
        loss = np.array([moved[place == i].mean() for i in range(len(sizes))])
        data = np.array([there[place == i].mean() for i in range(len(sizes))])
        ids = tuple(tuple(points.trial_ids[j] for j in level[place == i]) for i in range(len(sizes)))
        coefficients = np.polyfit(np.log(sizes), loss, 2)
        ideal = _vertex(np.polyfit(np.log(sizes), law.predict(sizes, data), 2))
        own = best_size(law, float((sizes * data).mean()))
        found.append(
            IsoFlop(
                compute=compute,
                parameters=sizes,
                loss=loss,
                trial_ids=ids,
                coefficients=(float(coefficients[0]), float(coefficients[1]), float(coefficients[2])),
                best=_vertex(coefficients),
                bias=None if ideal is None or not math.isfinite(own) else ideal / own,
            )
        )
    return found


def _levels(compute: Array) -> Iterator[np.ndarray]:
    """The positions of points of nearly equal compute, group by group."""
    order = np.argsort(compute)
    start = 0
    for i in range(1, len(order) + 1):
        if i == len(order) or compute[order[i]] > NEAR * compute[order[start]]:
            yield order[start:i]
            start = i


def _vertex(coefficients: Array) -> float | None:
    curvature, slope = float(coefficients[0]), float(coefficients[1])
    if curvature <= 0 or abs(slope / (2 * curvature)) > 100:
        return None
    return math.exp(-slope / (2 * curvature))
