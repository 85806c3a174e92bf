"""Predicted against measured loss: each rung as a law says that has not seen it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from analysis.figures.law_points import law_of, look, short
from analysis.figures.series import Point, Series, draw, traces
from analysis.store.store import Store
from analysis.strategies import NEUTRAL
from analysis.theme import base_layout


@dataclass(frozen=True, kw_only=True)
class LawPredictedInfo:
    """(measured, predicted) losses, a series for each rung that was held out.

    Attributes:
        series: The rungs; the largest is a series of its own, with intervals.
        span: Least and greatest loss that is drawn.
        loss: The column that is drawn.
        notes: The errors of the predictions.
    """

    series: tuple[Series, ...]
    span: tuple[float, float]
    loss: str
    notes: tuple[str, ...]


def info(store: Store) -> LawPredictedInfo:
    """Takes each rung with what the law of the others gives for it."""
    law = law_of(store)
    if law.found is None or not law.found.rungs:
        return LawPredictedInfo(series=(), span=(0.0, 0.0), loss="", notes=())
    found = law.found
    points, rungs = found.points, [*found.rungs]
    if found.held_out is not None:
        rungs = [rung for rung in rungs if rung.parameters != found.held_out.parameters] + [found.held_out]
    series, values = [], []
    for place, rung in enumerate(rungs):
        color, symbol = look(place, len(rungs))
        at = np.flatnonzero(points.parameters == rung.parameters)
        marks = []
        for k in range(len(rung.measured)):
            i = at[np.argmin(np.abs(points.loss[at] - rung.measured[k]))]
            marks.append(
                Point(
                    x=float(rung.measured[k]),
                    y=float(rung.predicted[k]),
                    ids=(points.trial_ids[i],),
                    text=f"{short(rung.data[k])} {points.unit}<br>{law.texts[points.trial_ids[i]]}",
                    low=None if rung.low is None else float(rung.low[k]),
                    high=None if rung.high is None else float(rung.high[k]),
                )
            )
        values += [*rung.measured, *rung.predicted]
        name = f"{short(rung.parameters)} parameters"
        series.append(Series(name=name, lines=(tuple(marks),), color=color, symbol=symbol, role="trials"))
    notes = [
        f"{short(rung.parameters)} parameters, unseen by the law: mean error {100 * rung.error:+.2f} %"
        + (
            "."
            if rung.inside is None
            else f", {rung.inside} of {len(rung.measured)} inside their 90 % intervals."
        )
        for rung in rungs
    ]
    return LawPredictedInfo(
        series=tuple(series),
        span=(float(min(values)), float(max(values))),
        loss=points.names["loss"],
        notes=tuple(notes),
    )


def figure(info: LawPredictedInfo) -> go.Figure | None:
    """Draws it; None where no rung could be held out."""
    if not info.series:
        return None
    layout = base_layout(
        title="Predicted against measured loss", x=f"measured {info.loss} / nats", y="predicted / nats"
    )
    result = draw(traces(info.series, x="measured %{x:.4f}", y="<b>predicted %{y:.4f}</b>"), layout)
    low, high = info.span
    result.add_shape(
        type="line", x0=low, x1=high, y0=low, y1=high,
        line={"dash": "dot", "width": 1.2, "color": NEUTRAL}, layer="below",
    )  # fmt: skip
    return result
