"""The best that storing, recomputing and reversing reach within a budget of memory, for every budget.

What is best changes only where a configuration begins to fit. So a few budgets tell the answer for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from analysis.answers.recommend import Configuration, comparable, eligible
from analysis.stats import Estimate, estimate
from analysis.strategies import inverts, is_exact, is_stored
from analysis.wording import bytes_text, count_text, precision_label, seconds_text, shape_text

KINDS: dict[str, Callable[[str | None], bool]] = {
    "stored": is_stored,
    "recomputed or moved": lambda name: is_exact(name) and not is_stored(name),
    "reversed": inverts,
}
"""How activations are come by, with what tells a strategy of that kind."""

MOST_STEPS = 60
"""Budgets that are told; those nearest to each other are left out first."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best of one kind within a budget.

    Attributes:
        kind: One of `KINDS`.
        choice: The configuration; None where none of the kind fits.
        difference: Of its score against the best stored one, over the seeds that both have; None without.
    """

    kind: str
    choice: Configuration | None
    difference: Estimate | None = None


@dataclass(frozen=True, kw_only=True)
class Within:
    """The best of each kind with a peak of at most `budget_bytes`."""

    budget_bytes: float
    best: tuple[Best, ...]


def within_each_budget(points: Sequence[Configuration]) -> list[tuple[str, list[Within]]]:
    """Return the best of each kind at every budget where one of them changes, by data set.

    A configuration has to have faithful gradients, and several seeds where others have several, as for a
    recommendation. Data sets on which one kind alone was tried are left out.
    """
    found = []
    for data, group in comparable(points):
        sound = sorted(eligible(group), key=lambda c: c.peak_bytes)
        if sum(any(_is(kind, c) for c in sound) for kind in KINDS) < 2:
            continue
        best: dict[str, Configuration] = {}
        steps: list[Within] = []
        for one in sound:
            kind = next((kind for kind in KINDS if _is(kind, one)), None)
            if kind is None or (kind in best and best[kind].merit >= one.merit):
                continue
            best[kind] = one
            step = Within(budget_bytes=one.peak_bytes, best=_compared(best))
            if steps and steps[-1].budget_bytes == one.peak_bytes:
                steps.pop()
            steps.append(step)
        found.append((data, _thinned(steps)))
    return found


def in_words(
    found: Sequence[tuple[str, Sequence[Within]]], position: Mapping[str, int]
) -> list[dict[str, object]]:
    """Return the answer as texts, the trials by their number on a page."""
    several = len(found) > 1
    return [
        {
            "heading": f"on {data}" if several else "",
            "steps": [
                {
                    "bytes": step.budget_bytes,
                    "budget": bytes_text(step.budget_bytes),
                    "lines": [_line(best, position) for best in step.best],
                }
                for step in steps
            ],
        }
        for data, steps in found
    ]


def _is(kind: str, one: Configuration) -> bool:
    return KINDS[kind](one.rows[0]["strategy"])


def _compared(best: Mapping[str, Configuration]) -> tuple[Best, ...]:
    stored = best.get("stored")
    return tuple(
        Best(
            kind=kind,
            choice=best.get(kind),
            difference=_difference(best[kind], stored)
            if kind in best and kind != "stored" and stored
            else None,
        )
        for kind in KINDS
    )


def _difference(one: Configuration, other: Configuration) -> Estimate | None:
    """The mean difference of validation scores over the seeds that both have, with its interval."""
    column = one.metric.val
    by_seed = {row["seed"]: row[column] for row in other.rows}
    return estimate(row[column] - by_seed[row["seed"]] for row in one.rows if row["seed"] in by_seed)


def _line(best: Best, position: Mapping[str, int]) -> dict[str, object]:
    one = best.choice
    if one is None:
        nothing: dict[str, object] = dict.fromkeys(("score", "peak", "time", "difference"), "")
        return {"kind": best.kind, "what": "none fits", "rows": [], **nothing}
    first, metric = one.rows[0], one.metric
    score = f"{metric.text(one.score.mean)} ({count_text(one.score.n, 'seed')}"
    interval = metric.interval_text(one.score)
    what = [first["model"] or "", shape_text(first), first["strategy"] or "", precision_label(first)]
    return {
        "kind": best.kind,
        "what": ", ".join(filter(None, what)),
        "score": f"{score}, {interval})" if interval else f"{score})",
        "peak": bytes_text(one.peak_bytes),
        "time": seconds_text(one.step_time.mean) if one.step_time else "–",
        "difference": _difference_text(best),
        "rows": [position[i] for i in one.ids],
    }


def _difference_text(best: Best) -> str:
    if best.kind == "stored":
        return ""
    if best.difference is None:
        return "no stored one with these seeds fits"
    assert best.choice is not None
    found = best.difference
    tied = found.low is not None and found.high is not None and found.low <= 0 <= found.high
    return best.choice.metric.difference_text(found) + (": a tie" if tied else "")


def _thinned(steps: list[Within]) -> list[Within]:
    """The steps, without those that are nearest to the one before where there are too many."""
    while len(steps) > MOST_STEPS:
        ratios = [b.budget_bytes / a.budget_bytes for a, b in pairwise(steps)]
        del steps[1 + min(range(len(ratios) - 1), key=ratios.__getitem__)]
    return steps
