"""What to train with under a memory budget: the answer the report opens with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from analysis.cohort import Cohort, cohort_of
from analysis.pareto import pareto_mask
from analysis.stats import Estimate, Row, estimates, group_by
from analysis.store.store import Store
from analysis.strategies import is_stored


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Trials that differ in nothing but the seed, as one point.

    Attributes:
        rows: The trials.
        accuracy: Their mean validation accuracy. Whatever is chosen is chosen by this.
        test: Their mean test accuracy, to be shown for what was chosen; None where no trial has one.
        peak_bytes: The largest peak of memory of a training step.
    """

    rows: tuple[Row, ...]
    accuracy: Estimate
    test: Estimate | None
    peak_bytes: float

    @property
    def ids(self) -> tuple[str, ...]:
        """Trial ids."""
        return tuple(row["trial_id"] for row in self.rows)

    @property
    def gradient_error(self) -> float | None:
        """The worst relative error of a gradient over the trials; None where nothing was rebuilt."""
        errors = [r["gradient_rel_error"] for r in self.rows if r["gradient_rel_error"] is not None]
        return max(errors, key=lambda e: math.inf if math.isnan(e) else e, default=None)

    @property
    def unfaithful(self) -> bool:
        """Whether gradients are off by more than `GRADIENT_ERROR_LIMIT`, or by no finite number."""
        error = self.gradient_error
        return error is not None and not error <= GRADIENT_ERROR_LIMIT


GRADIENT_ERROR_LIMIT = 0.1
"""Relative error of a gradient above which a recommendation carries a caution."""


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The configuration to pick under `budget_bytes`: the most accurate in validation of `candidates`.

    Attributes:
        data: the data set.
        budget_bytes: the budget.
        choice: the configuration.
        candidates: configurations that fit the budget.
        faithful: where the choice's gradients are off by more than `GRADIENT_ERROR_LIMIT`, the most accurate
            of the candidates whose gradients are not, if there is one.
        stored: where the choice does not store, the most accurate of the candidates that do, if there is one.

    """

    data: str
    budget_bytes: float
    choice: Configuration
    candidates: int
    faithful: Configuration | None = None
    stored: Configuration | None = None


def configurations(rows: Iterable[Row]) -> list[Configuration]:
    """Averages the seeds of every configuration that ended ok with a validation accuracy and a peak."""
    ok = Cohort.of(rows).ended_ok("accuracy_val")
    groups = ok.where(ok.positive("memory_peak_bytes")).alike("seed", same=("memory_source",))
    accuracies = estimates(group.numbers("accuracy_val") for group in groups)
    tests = estimates(group.numbers("accuracy_test") for group in groups)
    return [
        Configuration(
            rows=tuple(group),
            accuracy=accuracy,
            test=test,
            peak_bytes=max(r["memory_peak_bytes"] for r in group),
        )
        for group, accuracy, test in zip(groups, accuracies, tests, strict=True)
        if accuracy is not None
    ]


def configurations_of(store: Store) -> list[Configuration]:
    """The configurations of a store, computed once."""
    return store.remember("configurations", lambda: configurations(cohort_of(store)))


def recommend(
    rows: Iterable[Row], *, points: list[Configuration] | None = None, at_most: int = 4
) -> list[Recommendation]:
    """Return the best configuration under each of a few memory budgets, per data set and memory source.

    A budget is a round number of bytes just above the footprint of a configuration on the front of
    validation accuracy against peak memory. Selection uses validation accuracy, so that the test accuracy
    beside it stays an honest estimate.

    Args:
        rows: rows of the trials view.
        points: their `configurations`, where they are known already.
        at_most: budgets per data set.

    """
    rows = list(rows)
    found: list[Recommendation] = []
    if points is None:
        points = configurations(rows)
    comparable = group_by(points, lambda c: (c.rows[0]["data"] or "", c.rows[0]["memory_source"] or ""))
    for (data, _), group in sorted(comparable.items()):
        mask = pareto_mask([(_score(c), c.peak_bytes) for c in group], ("max", "min"))
        front = [c for c, on in zip(group, mask, strict=True) if on]
        front.sort(key=lambda c: c.peak_bytes)
        budgets: dict[float, Configuration] = {}
        for choice in front:
            budgets[round_up(choice.peak_bytes)] = choice
        chosen = list(budgets.items())
        if len(chosen) > at_most:
            # keep both ends and the steps between them that gain the most accuracy
            gains = sorted(
                range(1, len(chosen) - 1),
                key=lambda i: _score(chosen[i - 1][1]) - _score(chosen[i][1]),
            )
            keep = {0, len(chosen) - 1, *gains[: at_most - 2]}
            chosen = [item for i, item in enumerate(chosen) if i in keep]
        for budget, choice in chosen:
            fit = [c for c in group if c.peak_bytes <= budget]
            faithful = [c for c in fit if not c.unfaithful] if choice.unfaithful else []
            stored = [] if _stores(choice) else [c for c in fit if _stores(c)]
            found.append(
                Recommendation(
                    data=data,
                    budget_bytes=budget,
                    choice=choice,
                    candidates=len(fit),
                    faithful=max(faithful, key=_score, default=None),
                    stored=max(stored, key=_score, default=None),
                )
            )
    return found


def round_up(value: float) -> float:
    """The next number of the series 1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten."""
    if value <= 0:
        return 1.0
    scale = 10.0 ** math.floor(math.log10(value))
    for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10):
        if value <= step * scale * (1 + 1e-12):
            return step * scale
    return 10 * scale


def _stores(choice: Configuration) -> bool:
    return is_stored(choice.rows[0]["strategy"])


def _score(choice: Configuration) -> float:
    return choice.accuracy.mean
