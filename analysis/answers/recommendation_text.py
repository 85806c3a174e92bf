"""The recommendation in words: what to train with under a budget, on what evidence, with what caution."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from analysis.answers.recommend import GRADIENT_ERROR_LIMIT, Recommendation
from analysis.stats import Row, estimate, finite
from analysis.strategies import is_stored
from analysis.wording import (
    bytes_text,
    count_text,
    error_text,
    percent_text,
    precision_label,
    seconds_text,
    width_text,
)


def answer(pick: Recommendation, position: dict[str, int]) -> dict[str, Any]:
    """One line of the recommendation, as text."""
    first = pick.choice.rows[0]
    accuracy = pick.choice.test or pick.choice.accuracy
    time = estimate(r["step_time_s"] for r in pick.choice.rows)
    interval = None
    if accuracy.low is not None and accuracy.high is not None:
        interval = f"{100 * accuracy.low:.1f} to {100 * accuracy.high:.1f} %"
    return {
        "data": pick.data,
        "budget": _round_bytes(pick.budget_bytes),
        "model": first["model"],
        "settings": f"depth {first['depth']} · width {width_text(first)}",
        "how": f"{first['strategy']} · {precision_label(first)}",
        "metric": "test" if pick.choice.test else "validation",
        "validation": percent_text(pick.choice.accuracy.mean),
        "accuracy": percent_text(accuracy.mean),
        "interval": interval,
        "n": count_text(accuracy.n, "seed"),
        "peak": bytes_text(pick.choice.peak_bytes),
        "time": seconds_text(time.mean) if time else "–",
        "error": _error(pick.choice.gradient_error),
        "stored": _stored(pick),
        "cautions": cautions(pick),
        "candidates": pick.candidates,
        "rows": [position[i] for i in pick.choice.ids],
    }


def enough(picks: Sequence[Recommendation], rows: Sequence[Row]) -> str:
    """Says so where the largest footprints buy no accuracy; only asked of a single data set."""
    measured = [
        r["memory_peak_bytes"] for r in rows if r["outcome"] == "ok" and finite(r["memory_peak_bytes"])
    ]
    if not picks or len({pick.data for pick in picks}) > 1:
        return ""
    top = max(pick.budget_bytes for pick in picks)
    if max(measured) <= top:
        return ""
    return (
        f"More than {_round_bytes(top)} bought no validation accuracy here, though trials took up to "
        f"{bytes_text(max(measured))}."
    )


def cautions(pick: Recommendation) -> list[str]:
    """What a reader should know before following a recommendation; nothing if it stands on firm ground."""
    found = []
    if pick.choice.unfaithful:
        text = (
            "Its gradients, computed from rebuilt activations, are off by up to "
            f"{_error(pick.choice.gradient_error)} of their size (more than {GRADIENT_ERROR_LIMIT:g})."
        )
        if other := pick.faithful:
            first = other.rows[0]
            text += (
                f" With faithful gradients: {first['model']}, depth {first['depth']}, width "
                f"{width_text(first)}, {first['strategy']}, {precision_label(first)} reaches "
                f"{percent_text((other.test or other.accuracy).mean)} at {bytes_text(other.peak_bytes)}."
            )
        else:
            text += " No configuration that fits has faithful gradients: a finer precision or stream would."
        found.append(text)
    if pick.choice.accuracy.n == 1:
        found.append("One seed: how much of this is luck is unknown. Add seeds to the study to know.")
    return found


def _stored(pick: Recommendation) -> str:
    """What storing reaches under the same budget; nothing where the choice stores."""
    if is_stored(pick.choice.rows[0]["strategy"]):
        return ""
    return percent_text((pick.stored.test or pick.stored.accuracy).mean) if pick.stored else "none fits"


def _error(value: float | None) -> str:
    if value is None:
        return "none"
    return error_text(value) if math.isfinite(value) else "an unknown amount"


def _round_bytes(value: float) -> str:
    text = bytes_text(value)
    return re.sub(r"\.?0+ ", " ", text) if "." in text else text
