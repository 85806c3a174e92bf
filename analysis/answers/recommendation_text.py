"""The recommendation in words: what to train with under a budget, on what evidence, with what caution."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from analysis.answers.recommend import Configuration, Recommendation, comparable, eligible
from analysis.faithful import LIMIT_TEXT, rebuilds_nothing
from analysis.stats import Row, finite
from analysis.strategies import is_stored
from analysis.wording import bytes_text, count_text, error_text, precision_label, seconds_text, shape_text


def answer(pick: Recommendation, position: dict[str, int]) -> dict[str, Any]:
    """One line of the recommendation, as text."""
    choice, metric = pick.choice, pick.choice.metric
    first = choice.rows[0]
    shown = choice.test or choice.score
    return {
        "data": pick.data,
        "budget": _round_bytes(pick.budget_bytes),
        "model": first["model"],
        "settings": shape_text(first, " · "),
        "how": f"{first['strategy']} · {precision_label(first)}",
        "metric": f"{'test' if choice.test else 'validation'} {metric.name}",
        "tested": choice.test is not None,
        "validation": metric.figure(choice.score.mean),
        "score": metric.figure(shown.mean),
        "interval": metric.interval_text(shown),
        "n": count_text(shown.n, "seed"),
        "peak": bytes_text(choice.peak_bytes),
        "time": seconds_text(choice.step_time.mean) if choice.step_time else "–",
        "error": _error(choice),
        "stored": _stored(pick),
        "tie": tie_text(pick),
        "remarks": remarks(pick),
        "cautions": cautions(pick),
        "candidates": pick.candidates,
        "rows": [position[i] for i in choice.ids],
    }


def enough(picks: Sequence[Recommendation], rows: Sequence[Row]) -> str:
    """Says so where the largest footprints do not score better; only asked of a single data set."""
    measured = [
        r["memory_peak_bytes"] for r in rows if r["outcome"] == "ok" and finite(r["memory_peak_bytes"])
    ]
    if not picks or len({(pick.data, pick.choice.metric.stem) for pick in picks}) > 1:
        return ""
    top = max(pick.budget_bytes for pick in picks)
    if max(measured) <= top or picks[-1].unfaithful or picks[-1].lone or picks[-1].unprobed:
        return ""
    return (
        f"Using more than {_round_bytes(top)} (up to {bytes_text(max(measured))}) did not improve "
        f"validation {picks[0].choice.metric.name}."
    )


def none_faithful(points: Sequence[Configuration]) -> list[str]:
    """Says of each data set on which nothing can be recommended what the most successful one lacks."""
    found = []
    for data, group in comparable(points):
        if eligible(group):
            continue
        best = max(group, key=lambda c: c.merit)
        found.append(
            f"No configuration on {data} has gradients within {LIMIT_TEXT} of the stored ones, so none is "
            f"recommended. The best, {_named(best)}, is off by {_amount(best)}. A finer precision or "
            "stream, or storing, would do."
        )
    return found


def tie_text(pick: Recommendation) -> str:
    """Which configurations are as good as the one named, and why that one is named; nothing without a tie."""
    if not pick.tied:
        return ""
    metric, best = pick.choice.metric, pick.best
    gap = abs(best.score.mean - pick.choice.score.mean)
    spreads = [c.spread for c in (best, pick.choice) if c.spread is not None]
    text = f"Tied with {count_text(len(pick.tied), 'other configuration')}"
    if best is not pick.choice and spreads:
        text += (
            f": the best mean is {metric.amount(gap)} away, which is less than seeds differ "
            f"({metric.amount(math.sqrt(sum(s * s for s in spreads) / len(spreads)))})"
        )
    reason = "the smallest" if pick.by == "smaller" else "the fastest of the smallest"
    return f"{text}. This one is {reason}."


def remarks(pick: Recommendation) -> list[str]:
    """What scored better under the same budget and is not recommended, and why it is not."""
    found = []
    for other, why in (
        (pick.unfaithful, "its gradients are off by {error}, and more than {limit} is not safe"),
        (pick.unprobed, "its gradients were not compared with the stored ones"),
        (pick.lone, "it has one seed, where others have more"),
    ):
        if other is not None:
            reason = why.format(error=_amount(other), limit=LIMIT_TEXT)
            found.append(f"Not recommended: {_named(other)}, because {reason}.")
    return found


def cautions(pick: Recommendation) -> list[str]:
    """What a reader should know before following a recommendation; nothing if it stands on firm ground."""
    found = []
    if pick.choice.fidelity == "not probed":
        found.append("Its gradients were not compared with the stored ones. Turn on probing to know.")
    if pick.choice.score.n == 1:
        found.append("One seed: how much of this is luck is unknown. Add seeds to the study to know.")
    return found


def _named(one: Configuration) -> str:
    first = one.rows[0]
    what = ", ".join(filter(None, (first["model"], shape_text(first), first["strategy"])))
    return (
        f"{what}, {precision_label(first)}, reaches {one.metric.text((one.test or one.score).mean)} "
        f"at {bytes_text(one.peak_bytes)}"
    )


def _stored(pick: Recommendation) -> str:
    """What storing reaches under the same budget; nothing where the choice stores."""
    if is_stored(pick.choice.rows[0]["strategy"]):
        return ""
    stored = pick.stored
    return stored.metric.figure((stored.test or stored.score).mean) if stored else "none fits"


def _error(one: Configuration) -> str:
    if one.gradient_error is not None:
        return error_text(one.gradient_error)
    if one.fidelity == "not probed":
        return "not probed"
    return "none, nothing to rebuild" if any(map(rebuilds_nothing, one.rows)) else "none, nothing rebuilt"


def _amount(one: Configuration) -> str:
    error = one.gradient_error
    return f"{100 * error:.3g} %" if error is not None and math.isfinite(error) else "an unknown amount"


def _round_bytes(value: float) -> str:
    text = bytes_text(value)
    return re.sub(r"\.?0+ ", " ", text) if "." in text else text
