"""The loss of a training run as a function of its size and its data: L(N, D) = E + A/N^a + B/D^b.

The form is approach 3 of Hoffmann et al. 2022 (arXiv 2203.15556). The loss that is minimized is Huber's, on
the residuals of log L, as there. The start is found by variable projection: for given exponents the law is
linear in E, A and B, so only the two exponents are searched (arXiv 2603.22339 shows why isoFLOP parabolas are
biased where this is not). From the best starts all five numbers are refined together. Intervals come from a
bootstrap over groups, as in Porian et al. 2024: rows of one run are drawn together or not at all.

Legend of shapes: R resamples or starts, n rows, p = 5 numbers of the law.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from analysis.errors import AnalysisError
from analysis.laws.least_loss import HUBER, LIMITS, Array, Rows, log_losses, refine, starting_laws

Numbers = Sequence[float] | Array

NAMES = ("E", "A", "B", "a", "b")
EFFICIENT = 1.345
"""The turning point in standard deviations of the noise that loses 5 % of efficiency on normal noise."""
CELLS = 3_000_000
"""Numbers in an array of the bootstrap; with more rows, fewer resamples are fitted at once."""
SPAN = 4.0
"""A range of N or D below this factor does not tell an exponent."""


class LawError(AnalysisError):
    """The rows cannot hold this law: too few, not positive, or without a range."""


@dataclass(frozen=True, kw_only=True)
class LossLaw:
    """A fitted law L(N, D) = E + A/N^a + B/D^b.

    Attributes:
        E: The loss that neither size nor data removes, in the unit of the rows' loss.
        A: Coefficient of the size term.
        B: Coefficient of the data term.
        a: Exponent of the size.
        b: Exponent of the data.
        samples: (R, 5) the same five numbers fitted to R resamples, in the order of `NAMES`.
        residuals: (n,) log of measured over predicted loss, row by row.
        groups: How many groups the resamples were drawn from.
        warnings: What the rows cannot tell, one sentence each.
    """

    E: float
    A: float
    B: float
    a: float
    b: float
    samples: Array = field(repr=False)
    residuals: Array = field(repr=False)
    groups: int
    warnings: tuple[str, ...] = ()

    def interval(self, name: str, level: float = 0.9) -> tuple[float, float]:
        """The interval of one of the five numbers, from the quantiles of the resamples.

        Args:
            name: One of `NAMES`.
            level: Share of the resamples inside.

        Returns:
            Its two ends.

        Raises:
            LawError: There is no such number, or the law was fitted without resamples.
        """
        if name not in NAMES:
            raise LawError(f"a law of loss has the numbers {', '.join(NAMES)}; received {name!r}")
        return self.ends(self.samples[:, NAMES.index(name)], level)

    def predict(self, parameters: npt.ArrayLike, data: npt.ArrayLike) -> Array:
        """The loss at sizes and amounts of data, which broadcast against each other.

        Args:
            parameters: Sizes N, in parameters.
            data: Amounts of data D, in the unit of the rows (tokens or examples).

        Returns:
            The predicted loss, in the unit of the rows' loss.
        """
        theta = np.array([[self.E, self.A, self.B, self.a, self.b]])
        return _losses(theta, np.asarray(parameters, float), np.asarray(data, float))[0]

    def predict_interval(self, parameters: float, data: float, level: float = 0.9) -> tuple[float, float]:
        """The interval of the law's own value at one size and amount of data; noise of a run comes on top.

        Args:
            parameters: The size N.
            data: The amount of data D.
            level: Share of the resamples inside.

        Returns:
            Its two ends.

        Raises:
            LawError: The law was fitted without resamples.
        """
        return self.ends(self.predict_samples(parameters, data)[:, 0], level)

    def predict_samples(self, parameters: npt.ArrayLike, data: npt.ArrayLike) -> Array:
        """What each of the resampled laws gives for k sizes and amounts of data: (R, k) losses."""
        n, d = (np.atleast_1d(np.asarray(values, float)) for values in (parameters, data))
        return _losses(self.samples, n, d)

    def ends(self, values: Array, level: float = 0.9) -> tuple[float, float]:
        """The interval of a number that was computed from each of `samples`.

        Args:
            values: (R,) the number.
            level: Share of the resamples inside.

        Returns:
            Its two ends.

        Raises:
            LawError: The law was fitted without resamples.
        """
        if not len(values):
            raise LawError("the law was fitted with resamples=0; an interval needs resamples")
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


def fit_loss(
    parameters: Numbers,
    data: Numbers,
    loss: Numbers,
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> LossLaw:
    """Fit L(N, D) = E + A/N^a + B/D^b to rows of final or intermediate evaluations.

    Args:
        parameters: (n,) sizes N in parameters, positive.
        data: (n,) amounts of data D seen, positive.
        loss: (n,) losses, positive.
        groups: (n,) what is drawn together in a resample, such as the run or the seed; None draws rows.
        resamples: How many resamples the intervals come from; 0 fits without intervals.
        seed: Of the resamples.

    Returns:
        The law, with its resamples, residuals and warnings.

    Raises:
        LawError: Fewer than six rows, lengths that differ, numbers that are not positive and finite, or a
            size or an amount of data that is the same in all rows.

    Example:
        >>> n, d = np.meshgrid([1e6, 4e6, 16e6, 64e6], [1e8, 4e8, 16e8])
        >>> law = fit_loss(n.ravel(), d.ravel(), (1.69 + 406 / n**0.34 + 411 / d**0.28).ravel(), resamples=0)
        >>> round(law.a, 2), round(law.b, 2), round(law.E, 2)
        (0.34, 0.28, 1.69)
    """
    n, d, y = _checked(parameters, data, loss)
    log_n, log_d, log_y = np.log(n), np.log(d), np.log(y)
    center = np.array([log_n.mean(), log_d.mean()])
    rows = Rows(log_n - center[0], log_d - center[1], log_y)

    starts = starting_laws(rows)
    ones = np.ones((len(starts), len(y)))
    found, cost = refine(starts, rows, ones, HUBER)
    best = found[np.argmin(cost)][None]
    residuals = log_y - log_losses(best, rows)[0]
    scale = 1.4826 * float(np.median(np.abs(residuals - np.median(residuals))))
    delta = max(HUBER, EFFICIENT * scale)
    best, _ = refine(best, rows, ones[:1], delta)
    residuals = log_y - log_losses(best, rows)[0]

    labels: list[Hashable] = list(range(len(y))) if groups is None else list(groups)
    if len(labels) != len(y):
        raise LawError(f"groups must name one group a row; received {len(labels)} for {len(y)} rows")
    rng, block = np.random.default_rng(seed), max(1, CELLS // len(y))
    counts = [min(block, resamples - start) for start in range(0, resamples, block)]
    samples = [np.empty((0, len(NAMES)))]
    for count in counts:
        samples.append(refine(np.repeat(best, count, 0), rows, drawn(labels, count, rng), delta)[0])
    plain = _uncentered(np.concatenate([best, *samples]), center)
    e, big_a, big_b, a, b = (float(v) for v in plain[0])
    law = LossLaw(
        E=e, A=big_a, B=big_b, a=a, b=b, samples=plain[1:], residuals=residuals, groups=len(set(labels))
    )
    object.__setattr__(law, "warnings", tuple(_warnings(law, n, d)))
    return law


@dataclass(frozen=True)
class HeldOut:
    """What a law that has not seen one rung says of it.

    Attributes:
        parameters: The size of the rung that was held out.
        measured: (m,) its losses.
        predicted: (m,) what the law of the other rungs gives for them.
        data: (m,) their amounts of data.
        low: (m,) lower ends of the 90 % intervals of one training's loss; None without resamples.
        high: (m,) upper ends.
        error: Mean of predicted over measured, less one.
    """

    parameters: float
    measured: Array
    predicted: Array
    data: Array
    low: Array | None = None
    high: Array | None = None

    @property
    def error(self) -> float:
        """Mean relative error of the prediction."""
        return float(np.mean(self.predicted / self.measured) - 1)

    @property
    def inside(self) -> int | None:
        """How many of the measured losses lie in their intervals; None without resamples."""
        if self.low is None or self.high is None:
            return None
        return int(((self.low <= self.measured) & (self.measured <= self.high)).sum())


def hold_out(
    parameters: Numbers,
    data: Numbers,
    loss: Numbers,
    *,
    groups: Sequence[Hashable] | None = None,
    every: bool = False,
    resamples: int = 0,
) -> list[HeldOut]:
    """Predict the largest rung, or each in turn, from a law fitted to the others.

    Args:
        parameters: (n,) sizes N; rows of equal size are one rung.
        data: (n,) amounts of data D.
        loss: (n,) losses.
        groups: As for `fit_loss`.
        every: Hold out each rung in turn instead of the largest alone.
        resamples: Of the intervals; without any there are none.

    Returns:
        One result a rung held out, smallest first.

    Raises:
        LawError: As `fit_loss` does, on the rows that remain.
    """
    n, d, y = _checked(parameters, data, loss)
    names = {label: i for i, label in enumerate(dict.fromkeys(groups or ()))}
    labels = np.arange(len(y)) if groups is None else np.array([names[label] for label in groups])
    found = []
    for size in np.unique(n) if every else [n.max()]:
        out = n == size
        law = fit_loss(n[~out], d[~out], y[~out], groups=labels[~out].tolist(), resamples=resamples)
        low, high = _noisy(law, n[out], d[out]) if resamples else (None, None)
        found.append(HeldOut(float(size), y[out], law.predict(n[out], d[out]), d[out], low, high))
    return found


def _noisy(law: LossLaw, n: Array, d: Array) -> tuple[Array, Array]:
    """Ends of the 90 % intervals of single trainings: the law's uncertainty, and the noise of its rows."""
    rng = np.random.default_rng(0)
    left = len(law.residuals) / max(1, len(law.residuals) - len(NAMES))
    noise = rng.choice(law.residuals, (len(law.samples), len(n))) * np.sqrt(left)
    low, high = np.quantile(_losses(law.samples, n, d) * np.exp(noise), [0.05, 0.95], axis=0)
    return low, high


def _checked(parameters: Numbers, data: Numbers, loss: Numbers) -> tuple[Array, Array, Array]:
    named = {"parameters": parameters, "data": data, "loss": loss}
    arrays = {name: np.asarray(values, dtype=float).ravel() for name, values in named.items()}
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise LawError(f"parameters, data and loss must be of one length; received {lengths}")
    if min(lengths.values()) < 6:
        raise LawError(f"a law of five numbers needs at least six rows; received {min(lengths.values())}")
    for name, values in arrays.items():
        if not (np.isfinite(values).all() and (values > 0).all()):
            bad = values[~(np.isfinite(values) & (values > 0))][0]
            raise LawError(f"{name} must be positive and finite; received {bad:g}. Leave such rows out")
    for name in ("parameters", "data"):
        if np.ptp(arrays[name]) == 0:
            raise LawError(f"{name} must vary; received {arrays[name][0]:g} in all rows")
    return arrays["parameters"], arrays["data"], arrays["loss"]


def drawn(labels: Sequence[Hashable], resamples: int, rng: np.random.Generator) -> Array:
    """Return how often each row counts in each resample of whole groups, of shape (R, n)."""
    names = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    of_row = np.array([names[label] for label in labels])
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return counts[:, of_row].astype(float)


def _uncentered(theta: Array, center: Array) -> Array:
    """(R, 5) E, A, B, a, b from the refined numbers, which are relative to the rows' geometric means."""
    log_e, log_a, log_b, a, b = theta.T
    return np.stack([np.exp(log_e), np.exp(log_a + a * center[0]), np.exp(log_b + b * center[1]), a, b], 1)


def _losses(theta: Array, n: Array, d: Array) -> Array:
    """(R, …) losses of (R, 5) laws at sizes and data."""
    shape = (len(theta), *(1,) * np.broadcast(n, d).ndim)
    e, big_a, big_b, a, b = (column.reshape(shape) for column in theta.T)
    return e + big_a * n**-a + big_b * d**-b


def _warnings(law: LossLaw, n: Array, d: Array) -> Iterator[str]:
    """What these rows cannot tell."""
    for name, values, exponent in (("sizes", n, "a"), ("amounts of data", d, "b")):
        factor = values.max() / values.min()
        if factor < SPAN:
            yield (
                f"The {name} span a factor of {factor:.3g}, and {exponent} needs at least {SPAN:g}: "
                "take it as unknown."
            )
        distinct = len(np.unique(values))
        if distinct < 3:
            yield f"There are {distinct} different {name}, and {exponent} needs three: take it as unknown."
    if len(law.samples):
        for name in ("a", "b"):
            low, high = law.interval(name)
            if low <= LIMITS[3, 0] * 1.5 or high >= LIMITS[3, 1] * 0.99 or high > 4 * max(low, 1e-9):
                yield f"The rows do not determine {name}: its 90 % interval is {low:.2g} to {high:.2g}."
        low, high = law.interval("E")
        if low < 0.05 * law.predict(n.max(), d.max()):
            yield f"The rows do not determine E: its 90 % interval is {low:.2g} to {high:.2g}."
    if law.groups < 8:
        yield f"{law.groups} runs are few for a bootstrap: intervals are rough below eight."
