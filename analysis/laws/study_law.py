"""The law of loss of one study: fitted, tried on rungs that it has not seen, and looked at along its axes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.laws.efficient import Efficient, efficient
from analysis.laws.isoflop import IsoFlop, isoflops
from analysis.laws.least_loss import Array
from analysis.laws.loss import NAMES, HeldOut, LawError, LossLaw, fit_loss, hold_out
from analysis.laws.observations import Observations, observe
from analysis.laws.saturating import Saturating, fit_saturating

if TYPE_CHECKING:
    from analysis.store.store import Store

RESAMPLES = 1000
EARLY = (-0.02, 0.4)
"""Between these the log of the factor is sought by which early evaluations lie above final ones."""
CLOSE = 1.05
"""Amounts of data that differ by less than this factor count as one, where data are fixed."""


@dataclass(frozen=True, kw_only=True)
class AtData:
    """Loss over size at one amount of data.

    Attributes:
        data: The amount, D.
        sizes: How many sizes were trained on it.
        law: Loss = E + A/N^p.
    """

    data: float
    sizes: int
    law: Saturating


@dataclass(frozen=True, kw_only=True)
class StudyLaw:
    """What the rows of a study say of loss, size, data and compute.

    Attributes:
        points: The points behind the law; losses of early evaluations are divided by `early`.
        law: The law.
        early: The factor by which evaluations before the end of a schedule lie above final ones; None if none
            of them counts.
        held_out: The largest rung, predicted from the others; None where the others hold no law.
        rungs: Each rung in turn, as far as the others hold a law.
        over_compute: The lowest loss over compute C, as E + A/C^p; None with too few points.
        at_data: Loss over size at each amount of data with at least four sizes.
        per_pair: Operations for each parameter and each datum, the median over the points.
        frontier: The best size and data for budgets in the range of the study and ten times beyond.
        curves: Curves of equal compute with their parabolas.
        warnings: What the rows cannot tell.
    """

    points: Observations
    law: LossLaw
    early: float | None
    held_out: HeldOut | None
    rungs: tuple[HeldOut, ...]
    over_compute: Saturating | None
    at_data: tuple[AtData, ...]
    per_pair: float
    frontier: tuple[Efficient, ...]
    curves: tuple[IsoFlop, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a machine to read."""
        points, law = self.points, self.law
        return {
            "columns": dict(points.names),
            "evaluations": len(points),
            "final": int(points.final.sum()),
            "trainings": len(set(points.trial_ids)),
            "seeds": points.seeds,
            "law": {
                name: {"value": getattr(law, name), "low": low, "high": high}
                for name in NAMES
                for low, high in [law.interval(name)]
            },
            "early_factor": self.early,
            "residual_rms": float(np.sqrt(np.mean(law.residuals**2))),
            "held_out": None if self.held_out is None else _held_out_dict(self.held_out),
            "leave_one_rung_out": [_held_out_dict(rung) for rung in self.rungs],
            "loss_over_compute": None if self.over_compute is None else _saturating_dict(self.over_compute),
            "loss_over_size": [
                {"data": one.data, "sizes": one.sizes, **_saturating_dict(one.law)} for one in self.at_data
            ],
            "operations_per_parameter_and_datum": self.per_pair,
            "frontier": [asdict(one) for one in self.frontier],
            "isoflops": [
                {
                    "compute": curve.compute,
                    "parameters": curve.parameters.tolist(),
                    "loss": curve.loss.tolist(),
                    "best": curve.best,
                    "inside": curve.inside,
                    "bias": curve.bias,
                }
                for curve in self.curves
            ],
            "notes": list(points.notes),
            "warnings": list(self.warnings),
        }


def fit_study(
    store: Store,
    *,
    loss: str = "loss_val",
    evaluations: str = "auto",
    where: str | None = None,
    resamples: int = RESAMPLES,
) -> StudyLaw:
    """Fit the law of loss to a study.

    Args:
        store: Its rows.
        loss: As for `analysis.laws.observations.observe`.
        evaluations: Likewise.
        where: Likewise.
        resamples: How many resamples of trainings the intervals come from.

    Returns:
        The law with its intervals, what it says of rungs that it has not seen, and what the rows cannot tell.

    Raises:
        ObservationError: The rows have no such columns, or mix kinds of data or networks.
        LawError: The rows hold no law: fewer than six, or one size or amount of data alone.
    """
    found = observe(store, loss=loss, evaluations=evaluations, where=where)
    early = None
    if not found.final.all() and found.final.any():
        early = _early_factor(found)
        found = replace(found, loss=np.where(found.final, found.loss, found.loss / early))
    n, d, y, groups = found.parameters, found.data, found.loss, found.trial_ids
    law = fit_loss(n, d, y, groups=groups, resamples=resamples)
    held_out = _largest(found, resamples=max(100, resamples // 3))
    rungs = _each_rung(n, d, y)
    per_pair = float(np.median(found.compute / (n * d)))
    low, high = found.compute.min(), found.compute.max()
    return StudyLaw(
        points=found,
        law=law,
        early=early,
        held_out=held_out,
        rungs=tuple(rungs),
        over_compute=_over_compute(found),
        at_data=tuple(_at_data(found)),
        per_pair=per_pair,
        frontier=tuple(
            efficient(law, float(c), per_pair=per_pair) for c in [*np.geomspace(low, high, 4), 10 * high]
        ),
        curves=tuple(isoflops(found, law)),
        warnings=(*law.warnings, *found.warnings),
    )


def lowest_losses(points: Observations) -> np.ndarray:
    """The positions of points that no other beats in compute and loss at once, by compute."""
    order = np.lexsort((points.loss, points.compute))
    falling = np.minimum.accumulate(points.loss[order])
    first = np.concatenate([[True], falling[1:] < falling[:-1]])
    return order[first]


def _early_factor(points: Observations) -> float:
    """The factor that brings early evaluations onto the law of final ones best, by golden section."""

    def misfit(log_factor: float) -> float:
        y = points.loss / np.where(points.final, 1.0, np.exp(log_factor))
        return float(np.abs(fit_loss(points.parameters, points.data, y, resamples=0).residuals).mean())

    low, high = EARLY
    ratio = (5**0.5 - 1) / 2
    inner = [high - ratio * (high - low), low + ratio * (high - low)]
    values = [misfit(x) for x in inner]
    while high - low > 2e-3:
        if values[0] < values[1]:
            high, inner, values = inner[1], [0.0, inner[0]], [0.0, values[0]]
            inner[0] = high - ratio * (high - low)
            values[0] = misfit(inner[0])
        else:
            low, inner, values = inner[0], [inner[1], 0.0], [values[1], 0.0]
            inner[1] = low + ratio * (high - low)
            values[1] = misfit(inner[1])
    return float(np.exp((low + high) / 2))


def _largest(points: Observations, *, resamples: int) -> HeldOut | None:
    """The largest rung, predicted from the others; its finished trainings alone, if it has any."""
    top = points.parameters == points.parameters.max()
    judged = points.final | ~top if (points.final & top).any() else np.ones(len(points), bool)
    kept = points.only(judged)
    try:
        (found,) = hold_out(kept.parameters, kept.data, kept.loss, groups=kept.trial_ids, resamples=resamples)
    except LawError:
        return None
    return found


def _each_rung(n: Array, d: Array, y: Array) -> list[HeldOut]:
    try:
        return hold_out(n, d, y, every=True)
    except LawError:
        return []


def _over_compute(points: Observations) -> Saturating | None:
    best = lowest_losses(points)
    try:
        return fit_saturating(points.compute[best], points.loss[best])
    except LawError:
        return None


def _at_data(points: Observations) -> list[AtData]:
    order = np.argsort(points.data)
    starts = np.flatnonzero(np.diff(np.log(points.data[order]), prepend=-np.inf) > np.log(CLOSE))
    found = []
    for same in np.split(order, starts[1:]):
        sizes = len(np.unique(points.parameters[same]))
        if sizes < 4:
            continue
        law = fit_saturating(
            points.parameters[same], points.loss[same], groups=[points.trial_ids[i] for i in same]
        )
        data = float(np.exp(np.log(points.data[same]).mean()))
        found.append(AtData(data=data, sizes=sizes, law=law))
    return found


def _saturating_dict(law: Saturating) -> dict[str, Any]:
    return {
        "points": law.n,
        **{
            name: {"value": getattr(law, name), "low": low, "high": high}
            for name in ("E", "A", "p")
            for low, high in [law.interval(name)]
        },
    }


def _held_out_dict(rung: HeldOut) -> dict[str, Any]:
    return {
        "parameters": rung.parameters,
        "data": rung.data.tolist(),
        "measured": rung.measured.tolist(),
        "predicted": rung.predicted.tolist(),
        "low": None if rung.low is None else rung.low.tolist(),
        "high": None if rung.high is None else rung.high.tolist(),
        "inside": rung.inside,
        "error": rung.error,
    }
