"""What to train with under a memory budget: the answer the report opens with.

Recommended is what has faithful gradients (`analysis.faithful`), and more than one seed where others have
more. Configurations that differ by less than the spread of their seeds are tied, and the smallest of those
is recommended. What is better on thinner ground is told in a remark.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from analysis.cohort import Cohort, cohort_of
from analysis.faithful import Fidelity, fidelity, worst
from analysis.pareto import pareto_mask
from analysis.score import Score, score_of
from analysis.stats import Estimate, Row, estimate, estimates, group_by
from analysis.store.store import Store
from analysis.strategies import is_stored

SAME_SIZE = 0.01
"""Peaks that differ by no larger share are equal, so that the faster configuration is named."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Trials that differ in nothing but the seed, as one point.

    Attributes:
        rows: The trials.
        metric: What they are judged by.
        score: Their mean in validation. Whatever is chosen is chosen by this.
        test: Their mean in the test, to be shown for what was chosen; None where no trial has one.
        peak_bytes: The largest peak of memory of a training step.
    """

    rows: tuple[Row, ...]
    metric: Score
    score: Estimate
    test: Estimate | None
    peak_bytes: float

    @property
    def ids(self) -> tuple[str, ...]:
        """Trial ids."""
        return tuple(row["trial_id"] for row in self.rows)

    @property
    def merit(self) -> float:
        """The mean score, larger where it is better."""
        return self.metric.merit(self.score.mean)

    @cached_property
    def spread(self) -> float | None:
        """Standard deviation of the score over seeds; None of a single seed."""
        values = [row[self.metric.val] for row in self.rows]
        return statistics.stdev(values) if len(values) > 1 else None

    @cached_property
    def fidelity(self) -> Fidelity:
        """How its gradients compare with those of storing."""
        return fidelity(self.rows)

    @property
    def unfaithful(self) -> bool:
        """Whether a gradient is further from the stored one than `analysis.faithful.GRADIENT_LIMIT`."""
        return self.fidelity == "unfaithful"

    @property
    def gradient_error(self) -> float | None:
        """The worst relative error of a gradient over the trials; None where none was measured."""
        return worst(r["gradient_rel_error"] for r in self.rows)

    @cached_property
    def step_time(self) -> Estimate | None:
        """Mean time of a training step."""
        return estimate(r["step_time_s"] for r in self.rows)


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The configuration to pick under `budget_bytes`.

    Attributes:
        data: the data set.
        budget_bytes: the budget.
        choice: the configuration.
        candidates: configurations that fit the budget and may be recommended.
        best: the one of the best mean among them: the choice itself, or one that it is tied with.
        tied: candidates besides the choice that differ from the best by less than the spread of seeds.
        by: why the choice is named among those tied: ``smaller`` or ``faster``; empty without a tie.
        unfaithful: the best of those that fit whose gradients are not faithful, where its mean is better.
        unprobed: the best of those that fit whose gradients nobody compared, where its mean is better.
        lone: the best of those that fit and have a single seed, where its mean is better.
        stored: where the choice does not store, the best of the candidates that do, if there is one.

    """

    data: str
    budget_bytes: float
    choice: Configuration
    candidates: int
    best: Configuration
    tied: tuple[Configuration, ...] = ()
    by: str = ""
    unfaithful: Configuration | None = None
    unprobed: Configuration | None = None
    lone: Configuration | None = None
    stored: Configuration | None = None


def configurations(rows: Iterable[Row]) -> list[Configuration]:
    """Averages the seeds of every configuration that ended ok with a validation score and a peak."""
    cohort = Cohort.of(rows)
    ok = cohort.ended_ok()
    ok = ok.where(ok.positive("memory_peak_bytes"))
    found = []
    for metric, judged in ok.grouped(score_of).items():
        groups = judged.where(judged.finite(metric.val)).alike("seed", same=("memory_source",))
        scores = estimates(group.numbers(metric.val) for group in groups)
        tests = estimates(group.numbers(metric.test) for group in groups)
        found += [
            Configuration(
                rows=tuple(group),
                metric=metric,
                score=score,
                test=test,
                peak_bytes=max(r["memory_peak_bytes"] for r in group),
            )
            for group, score, test in zip(groups, scores, tests, strict=True)
            if score is not None
        ]
    return found


def configurations_of(store: Store) -> list[Configuration]:
    """The configurations of a store, computed once."""
    return store.remember("configurations", lambda: configurations(cohort_of(store)))


def comparable(points: Iterable[Configuration]) -> list[tuple[str, list[Configuration]]]:
    """Configurations by data set, metric and source of memory, each group with its data set."""
    groups = group_by(
        points, lambda c: (c.rows[0]["data"] or "", c.metric.stem, c.rows[0]["memory_source"] or "")
    )
    return [(data, group) for (data, _, _), group in sorted(groups.items())]


def eligible(group: Sequence[Configuration]) -> list[Configuration]:
    """Those that a headline may name: faithful gradients, and several seeds where such a one has several."""
    faithful = [c for c in group if c.fidelity in ("exact", "faithful")]
    return seeded(faithful or [c for c in group if not c.unfaithful])


def seeded(group: Sequence[Configuration]) -> list[Configuration]:
    """Those of several seeds, or all where none has several."""
    return [c for c in group if c.score.n > 1] or list(group)


def tie(a: Configuration, b: Configuration) -> bool:
    """Whether two means differ by less than their seeds do: the root of their mean variance."""
    spreads = [c.spread for c in (a, b) if c.spread is not None]
    spread = math.sqrt(sum(s * s for s in spreads) / len(spreads)) if spreads else 0.0
    return abs(a.merit - b.merit) <= spread


def recommend(
    rows: Iterable[Row], *, points: list[Configuration] | None = None, at_most: int = 4
) -> list[Recommendation]:
    """Return the configuration to pick under each of a few memory budgets, per data set and memory source.

    A budget is a round number of bytes just above the footprint of a configuration on the front of
    validation score against peak memory. Selection uses validation scores, so that the test score beside it
    stays an honest estimate. Nothing is recommended where no configuration has faithful gradients.

    Args:
        rows: rows of the trials view.
        points: their `configurations`, where they are known already.
        at_most: budgets per data set.

    """
    found: list[Recommendation] = []
    for data, group in comparable(configurations(rows) if points is None else points):
        sound = eligible(group)
        mask = pareto_mask([(c.merit, c.peak_bytes) for c in sound], ("max", "min"))
        front = sorted((c for c, on in zip(sound, mask, strict=True) if on), key=lambda c: c.peak_bytes)
        chosen: dict[tuple[str, ...], Recommendation] = {}
        for budget in dict.fromkeys(round_up(c.peak_bytes) for c in front):
            pick = _pick(data, budget, group, sound)
            chosen.setdefault(pick.choice.ids, pick)
        picks = list(chosen.values())
        if len(picks) > at_most:
            # keep both ends and the steps between them that gain the most
            gains = sorted(
                range(1, len(picks) - 1),
                key=lambda i: picks[i - 1].choice.merit - picks[i].choice.merit,
            )
            keep = {0, len(picks) - 1, *gains[: at_most - 2]}
            picks = [pick for i, pick in enumerate(picks) if i in keep]
        found += picks
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


def _pick(
    data: str, budget: float, group: Sequence[Configuration], sound: Sequence[Configuration]
) -> Recommendation:
    """The recommendation under one budget: `sound` may be recommended, `group` may be remarked on."""
    fit = [c for c in sound if c.peak_bytes <= budget]
    best = max(fit, key=lambda c: c.merit)
    level = [c for c in fit if tie(best, c)]
    smallest = min(c.peak_bytes for c in level)
    small = [c for c in level if c.peak_bytes <= (1 + SAME_SIZE) * smallest]
    choice = min(small, key=lambda c: (_time(c), c.peak_bytes))
    others = [c for c in group if c.peak_bytes <= budget and c.merit > choice.merit and not tie(c, choice)]
    named = {c.ids for c in sound}
    others = [c for c in others if c.ids not in named]
    sure = [c for c in others if c.fidelity in ("exact", "faithful")]
    stores = is_stored(choice.rows[0]["strategy"])
    stored = [] if stores else [c for c in fit if is_stored(c.rows[0]["strategy"])]
    return Recommendation(
        data=data,
        budget_bytes=budget,
        choice=choice,
        candidates=len(fit),
        best=best,
        tied=tuple(c for c in level if c is not choice),
        by="" if len(level) == 1 else "faster" if len(small) > 1 else "smaller",
        unfaithful=_first(c for c in others if c.unfaithful),
        unprobed=_first(c for c in others if c.fidelity == "not probed"),
        lone=_first(sure),
        stored=_first(stored),
    )


def _time(choice: Configuration) -> float:
    return choice.step_time.mean if choice.step_time else math.inf


def _first(group: Iterable[Configuration]) -> Configuration | None:
    return max(group, key=lambda c: c.merit, default=None)
