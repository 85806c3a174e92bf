"""Two trials that differ in one factor alone, and what the factor does: paired differences and ratios."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from analysis.cohort import Cohort
from analysis.stats import Estimate, Row, estimate, finite
from analysis.strategies import is_stored, preference


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two trials that differ in one factor alone."""

    treatment: Row
    control: Row

    @property
    def ids(self) -> tuple[str, str]:
        """Trial ids, treatment first."""
        return self.treatment["trial_id"], self.control["trial_id"]


def pairs(
    rows: Iterable[Row],
    factor: str,
    *,
    treatment: Callable[[Row], bool],
    control: Callable[[Row], bool],
    same: Sequence[str] = (),
) -> list[Pair]:
    """Pairs every treatment trial with the control trial of equal settings and equal seed.

    Args:
        rows: rows of the trials view.
        factor: the one factor the two may differ in.
        treatment: picks the treated trials.
        control: picks the controls.
        same: further columns that must agree.

    Returns:
        The pairs; a trial that has no partner is in none.

    """
    cohort = Cohort.of(rows)
    keyed = list(zip(cohort, cohort.keys(factor, same=same).tolist(), strict=True))
    controls = {key: row for row, key in reversed(keyed) if control(row)}
    treated = [(row, controls.get(key)) for row, key in keyed if treatment(row)]
    return [Pair(treatment=row, control=twin) for row, twin in treated if twin is not None]


def family_twins(rows: Iterable[Row], *, tolerance: float = 0.25) -> list[Pair]:
    """Pairs every RevNet with the ResNet nearest in parameters, if within `tolerance`, all else equal.

    Width is multiplied onto the twins alike, so it must agree; the RevNet may use any strategy, and of a
    RevNet run under several the reversing one is taken. Each RevNet enters once per seed.

    Returns:
        The pairs, the RevNet as treatment and the ResNet as control.
    """
    cohort = Cohort.of(rows)
    sized = cohort.where(cohort.finite("parameters"))
    found = []
    for group in sized.alike("model", "strategy"):
        families = {family: part for (family,), part in group.by("family").items()}
        candidates = families.get("resnet", ())
        if not candidates or "revnet" not in families:
            continue
        for of_depth in families["revnet"].by("depth").values():
            revnet = min(of_depth, key=lambda r: preference(r["strategy"]))
            gap, twin = min(
                ((abs(math.log(c["parameters"] / revnet["parameters"])), c) for c in candidates),
                key=lambda item: (item[0], not is_stored(item[1]["strategy"])),
            )
            if gap <= math.log1p(tolerance):
                found.append(Pair(treatment=revnet, control=twin))
    return found


def difference(paired: Iterable[Pair], column: str) -> Estimate | None:
    """Mean of treatment minus control over the pairs where both are finite."""
    both = [(p.treatment[column], p.control[column]) for p in paired]
    return estimate(a - b for a, b in both if finite(a) and finite(b))


def ratio(paired: Iterable[Pair], column: str) -> Estimate | None:
    """Geometric mean of treatment over control over the pairs where both are positive."""
    both = [(p.treatment[column], p.control[column]) for p in paired]
    return geometric(a / b for a, b in both if finite(a) and finite(b) and a > 0 and b > 0)


def geometric(ratios: Iterable[float]) -> Estimate | None:
    """Geometric mean of positive ratios with its interval; None without any."""
    logs = estimate(math.log(one) for one in ratios)
    if logs is None:
        return None
    low, high = (None if end is None else math.exp(end) for end in (logs.low, logs.high))
    return Estimate(mean=math.exp(logs.mean), low=low, high=high, n=logs.n)
