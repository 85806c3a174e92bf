"""Every strategy on one chart: the time a step takes against the activation memory it saves."""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.figures.overhead import stored_pairs
from analysis.figures.series import Point, Series, describe, draw, traces
from analysis.pairs import Pair, ratio
from analysis.stats import finite, group_by
from analysis.store.store import Store
from analysis.strategies import NEUTRAL, strategy_color
from analysis.theme import base_layout, family_symbol, log_ticks
from analysis.wording import count_text, joined, ratio_text


@dataclass(frozen=True, kw_only=True)
class TimeMemoryInfo:
    """Pairs of equal settings and seed: (stored twin's activation memory over its own, time over the twin's).

    Attributes:
        series: one per strategy and family.
        pairs: how many pairs are drawn.

    """

    series: tuple[Series, ...]
    pairs: int
    notes: tuple[str, ...]


def info(store: Store) -> TimeMemoryInfo:
    """Pairs each trial that does not store with the one that does, on the same machine."""
    found = [p for p in stored_pairs(store) if _saved(p) is not None]
    series, notes = [], []
    looks = group_by(found, lambda p: (p.treatment["strategy"], p.treatment["family"] or ""))
    for (strategy, family), group in sorted(looks.items()):
        series.append(
            Series(
                name=joined(strategy, family),
                lines=(tuple(_point(p) for p in group),),
                color=strategy_color(strategy),
                symbol=family_symbol(family),
                role="pair",
                size=9,
                opacity=0.8,
                keys=(("strategy", strategy), ("family", family)),
            )
        )
        time, memory = ratio(group, "step_time_s"), ratio(group, "memory_activation_bytes")
        if time and memory:
            notes.append(
                f"{strategy}, {family}: {ratio_text(memory)} the activation memory of storing, in "
                f"{ratio_text(time)} its time ({count_text(len(group), 'pair')})."
            )
    if found:
        notes.append("The dotted lines are storing itself. Down and to the right is better.")
    return TimeMemoryInfo(series=tuple(series), pairs=len(found), notes=tuple(notes))


def figure(info: TimeMemoryInfo) -> go.Figure | None:
    """Draws it; None if there is no pair."""
    if not info.series:
        return None
    layout = base_layout(
        title="Step time against activation memory saved",
        x="stored twin's activation memory / own",
        y="step time / stored twin's",
    )
    layout.xaxis.type = "log"
    layout.xaxis.update(log_ticks([1.0, *(float(p.x) for one in info.series for p in one.points)]))
    result = draw(
        traces(
            info.series,
            x="activation memory <b>%{x:.3g}×</b> smaller",
            y="<b>%{y:.3f}×</b> the step time of storing",
        ),
        layout,
    )
    for axes in (
        {"x0": 0, "x1": 1, "xref": "paper", "y0": 1, "y1": 1},
        {"x0": 1, "x1": 1, "y0": 0, "y1": 1, "yref": "paper"},
    ):
        result.add_shape(
            type="line", **axes, line={"dash": "dot", "width": 1.2, "color": NEUTRAL}, layer="below"
        )
    return result


def _saved(pair: Pair) -> float | None:
    own, stored = (side["memory_activation_bytes"] for side in (pair.treatment, pair.control))
    if not (finite(own) and finite(stored) and own > 0 and stored > 0):
        return None
    return stored / own


def _point(pair: Pair) -> Point:
    return Point(
        x=_saved(pair) or 1.0,
        y=pair.treatment["step_time_s"] / pair.control["step_time_s"],
        ids=pair.ids,
        text=describe([pair.treatment]) + f"<br>against {pair.control['trial_id']}",
    )
