"""Where a law of loss puts a budget of compute: the size and the data that reach the lowest loss.

Under L(N, D) = E + A/N^a + B/D^b and C = k·N·D the best size is N = G (C/k)^(b/(a+b)) with
G = (aA/(bB))^(1/(a+b)) (Hoffmann et al. 2022, arXiv 2203.15556, equation 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.laws.least_loss import Array
from analysis.laws.loss import LossLaw


@dataclass(frozen=True, kw_only=True)
class Efficient:
    """The best use of one budget of compute.

    Attributes:
        compute: The budget C, in operations of the model.
        parameters: The best size N.
        data: The data D that are left for it.
        loss: What the law gives there.
        low: Lower end of the 90 % interval of the law's best loss.
        high: Upper end.
    """

    compute: float
    parameters: float
    data: float
    loss: float
    low: float
    high: float


def efficient(law: LossLaw, compute: float, *, per_pair: float = 6.0) -> Efficient:
    """Return the size and data of the lowest loss.

    Args:
        law: The law, with resamples.
        compute: The budget C, in operations.
        per_pair: k, operations for each parameter and each datum.

    Raises:
        LawError: The law was fitted without resamples.
    """
    theta = np.array([[law.E, law.A, law.B, law.a, law.b]])
    n, loss = (float(v[0]) for v in _best(theta, compute / per_pair))
    low, high = law.ends(_best(law.samples, compute / per_pair)[1])
    return Efficient(
        compute=compute, parameters=n, data=compute / per_pair / n, loss=loss, low=low, high=high
    )


def best_size(law: LossLaw, pairs: float) -> float:
    """The best size N for a product N·D."""
    theta = np.array([[law.E, law.A, law.B, law.a, law.b]])
    return float(_best(theta, pairs)[0][0])


def _best(theta: Array, pairs: float) -> tuple[Array, Array]:
    """(R,) best sizes and losses of (R, 5) laws."""
    e, big_a, big_b, a, b = (theta[:, i] for i in range(5))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        n = (a * big_a / (b * big_b)) ** (1 / (a + b)) * pairs ** (b / (a + b))
        return n, e + big_a * n**-a + big_b * (pairs / n) ** -b
