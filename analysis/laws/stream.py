"""Errors of rebuilding over the bits of the streams and depth: the law that only reversible networks have.

A stream that is rounded to P bits of significand cannot be rebuilt better than to 2^-P, and each unit
adds its own rounding: log2(error) = c − s·P + q·log2(depth), with s near 1 and q between 1/2 (errors of
independent sign) and 1 (of equal sign). On a fixed-point grid (exact coupling) the error is 0 at any
depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.laws.formats import SIGNIFICAND
from analysis.laws.loss import drawn
from analysis.laws.relation import RelationError
from analysis.stats import finite

if TYPE_CHECKING:
    from analysis.store.store import Store

ERRORS = ("reconstruction_rel_error", "gradient_rel_error", "gradient_angle_deg")
"""The columns of trials that hold such errors."""


@dataclass(frozen=True, kw_only=True)
class StreamLaw:
    """How an error of rebuilding goes with the stream's bits and with depth.

    Attributes:
        column: The error.
        trials: Trials of additive coupling behind the law.
        per_bit: s: powers of two by which a bit of the stream lowers the error.
        per_doubling: q: powers of two by which twice the depth raises it.
        constant: c.
        intervals: 90 % intervals of the three by bootstrap over trials, by name.
        spread: Standard deviation of log2 of the error around the law.
        exact: Trials of exact coupling.
        exact_worst: The largest error among them; None without any.
        alone: Whether the bits of streams and of arithmetic always go together, so that they cannot be told
            apart.
    """

    column: str
    trials: int
    per_bit: float
    per_doubling: float
    constant: float
    intervals: Mapping[str, tuple[float, float]]
    spread: float
    exact: int
    exact_worst: float | None
    alone: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a machine to read."""
        return {**vars(self), "intervals": {name: list(ends) for name, ends in self.intervals.items()}}


def fit_stream(store: Store, column: str, *, where: str | None = None, resamples: int = 1000) -> StreamLaw:
    """Fit an error of rebuilding to the bits of the streams and to depth.

    Args:
        store: The rows.
        column: ``reconstruction_rel_error``, ``gradient_rel_error`` or ``gradient_angle_deg``.
        where: A condition in SQL on the columns of ``trials``.
        resamples: How many resamples the intervals come from.

    Returns:
        The law, and what exact streams have.

    Raises:
        RelationError: Fewer than four trials with an error, or one precision or one depth alone.
    """
    condition = f" AND ({where})" if where else ""
    rows = store.sql(
        f"SELECT depth, compute_dtype, stream_dtype, coupling, {column} AS error FROM trials "
        f"WHERE outcome = 'ok' AND coupling_rule IS NULL AND depth > 0 AND {column} >= 0{condition}"
    ).to_pylist()
    rows = [row for row in rows if row["stream_dtype"] in SIGNIFICAND and finite(row["error"])]
    exact = [row["error"] for row in rows if row["coupling"] == "exact"]
    additive = [row for row in rows if row["coupling"] != "exact" and row["error"] > 0]
    bits = np.array([SIGNIFICAND[row["stream_dtype"]] for row in additive], float)
    depth = np.log2(np.array([row["depth"] for row in additive], float))
    for name, values in (("stream_dtype", bits), ("depth", depth)):
        if len(values) < 4 or np.ptp(values) == 0:
            raise RelationError(
                f"{column} over bits and depth needs four trials of additive coupling that differ in {name}; "
                f"here are {len(additive)} with {len(np.unique(values))}"
            )
    y = np.log2([row["error"] for row in additive])
    design = np.stack([np.ones_like(bits), -bits, depth], 1)
    counts = drawn(list(range(len(y))), resamples, np.random.default_rng(0))
    weights = np.concatenate([np.ones((1, len(y))), counts])
    gram = np.einsum("rn,ni,nj->rij", weights, design, design) + 1e-9 * np.eye(3)
    found = np.linalg.solve(gram, np.einsum("rn,ni,n->ri", weights, design, y)[..., None])[..., 0]
    ends = np.quantile(found[1:], [0.05, 0.95], axis=0)
    names = ("constant", "per_bit", "per_doubling")
    return StreamLaw(
        column=column,
        trials=len(y),
        constant=float(found[0, 0]),
        per_bit=float(found[0, 1]),
        per_doubling=float(found[0, 2]),
        intervals={name: (float(ends[0, i]), float(ends[1, i])) for i, name in enumerate(names)},
        spread=float(np.std(y - design @ found[0])),
        exact=len(exact),
        exact_worst=max(exact) if exact else None,
        alone=all(row["compute_dtype"] == row["stream_dtype"] for row in additive),
    )
