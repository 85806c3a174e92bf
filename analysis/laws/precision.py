"""Precision as a number: what coarse arithmetic takes from the size of a network.

Kumar et al. 2024 (arXiv 2411.04330): it acts as if there were fewer parameters, N_eff = N·Π(1 −
e^(−P/γ)), with one factor for each kind of precision. P counts bits of the significand, see
`analysis.laws.formats`; the paper counts all bits of integers.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import least_squares

from analysis.laws.formats import SIGNIFICAND
from analysis.laws.least_loss import HUBER, LIMITS, Array
from analysis.laws.loss import NAMES, LawError, Numbers, drawn, fit_loss
from analysis.laws.observations import observe

if TYPE_CHECKING:
    from analysis.store.store import Store

GAMMAS = (0.5, 1.0, 2.0, 4.0)
"""Where the search for each γ starts."""
GAMMA_LIMITS = (np.log(0.05), np.log(50.0))


@dataclass(frozen=True, kw_only=True)
class PrecisionLaw:
    """A fitted law L = E + A/N_eff^a + B/D^b with N_eff = N·Π(1 − e^(−P/γ)).

    Attributes:
        E: As in `analysis.laws.loss.LossLaw`.
        A: Likewise.
        B: Likewise.
        a: Likewise.
        b: Likewise.
        gammas: γ by kind of precision.
        samples: (R, 5 + k) the numbers of each resample, the γ behind the others, in the order of `gammas`.
        residuals: (n,) log of measured over predicted loss.
        warnings: What the rows cannot tell.
    """

    E: float
    A: float
    B: float
    a: float
    b: float
    gammas: Mapping[str, float]
    samples: Array = field(repr=False)
    residuals: Array = field(repr=False)
    warnings: tuple[str, ...] = ()

    def interval(self, name: str, level: float = 0.9) -> tuple[float, float]:
        """The interval of one of the five numbers, or of the γ of a kind of precision."""
        column = (*NAMES, *self.gammas).index(name)
        low, high = np.quantile(self.samples[:, column], [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a machine to read."""
        values = {**{name: getattr(self, name) for name in NAMES}, **self.gammas}
        found = {
            name: {"value": value, "low": low, "high": high}
            for name, value in values.items()
            for low, high in [self.interval(name)]
        }
        numbers = {name: found[name] for name in NAMES}
        gammas = {name: found[name] for name in self.gammas}
        return {"law": numbers, "gammas": gammas, "warnings": list(self.warnings)}

    def share(self, **bits: float) -> float:
        """N_eff over N at so many bits of each kind; a kind that is not given counts as exact."""
        return float(np.prod([1 - np.exp(-p / self.gammas[name]) for name, p in bits.items()]))


def fit_precision(
    parameters: Numbers,
    data: Numbers,
    loss: Numbers,
    bits: Mapping[str, Numbers],
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 200,
) -> PrecisionLaw:
    """Fit the law of effective size to rows of finished trainings.

    Args:
        parameters: (n,) sizes N.
        data: (n,) amounts of data D.
        loss: (n,) losses.
        bits: (n,) bits P of each kind of precision, such as ``compute`` and ``stream``, by its name.
        groups: As for `analysis.laws.loss.fit_loss`.
        resamples: How many resamples the intervals come from.

    Returns:
        The law.

    Raises:
        LawError: A kind of precision with one value alone, or rows that hold no law of size and data.
    """
    n, d, y = (np.asarray(values, float) for values in (parameters, data, loss))
    names, widths = tuple(bits), np.stack([np.asarray(values, float) for values in bits.values()])
    for name, values in zip(names, widths, strict=True):
        if np.ptp(values) == 0:
            raise LawError(f"bits of {name} must vary; received {values[0]:g} in all rows")
    finest = (widths == widths.max(1, keepdims=True)).all(0)
    enough = finest.sum() >= 6 and np.ptp(n[finest]) > 0 and np.ptp(d[finest]) > 0
    start = (
        fit_loss(n[finest], d[finest], y[finest], resamples=0) if enough else fit_loss(n, d, y, resamples=0)
    )
    center = np.array([np.log(n).mean(), np.log(d).mean()])
    first = np.array(
        [
            np.log(max(start.E, 1e-12)),
            np.log(start.A) - start.a * center[0],
            np.log(start.B) - start.b * center[1],
            start.a,
            start.b,
        ]
    )
    rows = (np.log(n) - center[0], np.log(d) - center[1], np.log(y), widths)
    scale = max(HUBER, 1.4826 * float(np.median(np.abs(start.residuals))))
    everything = np.arange(len(y))
    tries = [
        _solve(np.append(first, np.full(len(names), np.log(g))), rows, everything, scale) for g in GAMMAS
    ]
    best = min(tries, key=lambda found: found.cost)
    labels: list[Hashable] = list(range(len(y))) if groups is None else list(groups)
    counts = drawn(labels, resamples, np.random.default_rng(0)).astype(int)
    samples = [_solve(best.x, rows, np.repeat(everything, count), scale).x for count in counts]
    plain = np.array([_plain(theta, center) for theta in [best.x, *samples]])
    law = PrecisionLaw(
        **dict(zip(NAMES, plain[0, :5].tolist(), strict=True)),
        gammas=dict(zip(names, plain[0, 5:].tolist(), strict=True)),
        samples=plain[1:],
        residuals=-_misfit(best.x, rows, everything),
    )
    warnings = []
    for name in names:
        low, high = law.interval(name)
        if high > 3 * low or low < 0.06 or high > 45:
            warnings.append(
                f"The rows do not determine γ of {name}: its 90 % interval is {low:.2g} to {high:.2g}."
            )
    object.__setattr__(law, "warnings", tuple(warnings))
    return law


def _misfit(theta: Array, rows: tuple[Array, Array, Array, Array], taken: np.ndarray) -> Array:
    log_n, log_d, log_y, widths = (values[..., taken] for values in rows)
    shares = np.log1p(-np.exp(-widths / np.exp(theta[5:, None]))).sum(0)
    size = log_n + np.maximum(shares, -50.0)
    loss = np.exp(theta[0]) + np.exp(theta[1] - theta[3] * size) + np.exp(theta[2] - theta[4] * log_d)
    return np.log(loss) - log_y


def _solve(start: Array, rows: tuple[Array, Array, Array, Array], taken: np.ndarray, scale: float) -> Any:
    kinds = len(start) - 5
    low = np.append(LIMITS[:, 0], np.full(kinds, GAMMA_LIMITS[0]))
    high = np.append(LIMITS[:, 1], np.full(kinds, GAMMA_LIMITS[1]))
    return least_squares(
        _misfit,
        np.clip(start, low + 1e-6, high - 1e-6),
        bounds=(low, high),
        args=(rows, taken),
        loss="huber",
        f_scale=1.345 * scale,
        x_scale="jac",
        max_nfev=200,
    )


def _plain(theta: Array, center: Array) -> Array:
    e, big_a, big_b, a, b = theta[:5]
    numbers = [np.exp(e), np.exp(big_a + a * center[0]), np.exp(big_b + b * center[1]), a, b]
    return np.array([*numbers, *np.exp(theta[5:])])


def fit_study_precision(
    store: Store, *, loss: str = "loss_val", evaluations: str = "auto", where: str | None = None
) -> PrecisionLaw:
    """Fit the law of effective size to the rows of a study.

    Args:
        store: The rows.
        loss: As for `analysis.laws.observations.observe`.
        evaluations: Likewise.
        where: Likewise.

    Returns:
        The law, with a γ for arithmetic (``compute``) and for streams (``stream``), each if it varies on its
        own.

    Raises:
        LawError: All rows have one precision, or a format of unknown bits.
        ObservationError: As `observe` does.
    """
    points = observe(store, loss=loss, evaluations=evaluations, where=where)
    rows = {row["trial_id"]: row for row in store.rows_of("trials", points.trial_ids)}
    bits: dict[str, list[float]] = {}
    for kind in ("compute", "stream"):
        formats = [rows[trial_id][f"{kind}_dtype"] for trial_id in points.trial_ids]
        unknown = sorted({str(name) for name in formats if name not in SIGNIFICAND})
        if unknown:
            raise LawError(f"the bits of {kind}_dtype {unknown[0]} are not known; leave it out with --where")
        values = [float(SIGNIFICAND[name]) for name in formats]
        if len(set(values)) > 1 and values not in bits.values():
            bits[kind] = values
    if not bits:
        raise LawError(
            "a law of precision needs trainings in at least two formats: vary precision.compute or "
            "precision.stream in the study"
        )
    return fit_precision(points.parameters, points.data, points.loss, bits, groups=points.trial_ids)
